#compdef lsub
# Completion of lsub for zsh: put "source <(lsub completion zsh)" into ~/.zshrc, after compinit; or
# write it as the file _lsub into a folder of $fpath.
_lsub() {
	local -a names
	local line
	while IFS= read -r line; do
		if [[ $line == :files ]]; then
			_files
			return
		fi
		names+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
	done < <(lsub complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)
	_describe -V lsub names
}
if [[ ${funcstack[1]-} == _lsub ]]; then
	_lsub "$@"
else
	compdef _lsub lsub
fi
