# Completion of lsub for bash: put "source <(lsub completion bash)" into ~/.bashrc.
_lsub() {
	local cur=$2 line words=("${COMP_WORDS[@]:1:COMP_CWORD}")
	COMPREPLY=()
	# bash takes "port:8080" and "--flag=value" apart: what is before the last sign is on the line already.
	while IFS= read -r line; do
		case $line in
		:files) compopt -o default; return ;;
		*) COMPREPLY+=("${line%%$'\t'*}") ;;
		esac
	done < <(lsub complete -- "${words[@]}" 2>/dev/null)
}
complete -F _lsub lsub
