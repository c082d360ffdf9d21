# Writes a file, whose content is stdin. $1 is its path, $2 its mode, $3 its owner or "", $4 the
# directory of marks, "" for the user's own, $5 the mark. LSUB_SIZE is its size in bytes.
set -u
path=$1 mode=$2 owner=$3 dir=$4 mark=$5
[ -n "$dir" ] || dir=$HOME/.local/state/lsub/up
case $path in '~/'*) path=$HOME/${path#'~/'} ;; esac
if [ -d "$path" ]; then
	echo "$path is a directory" >&2
	exit 1
fi
umask 022
parent=${path%/*}
mkdir -p "${parent:=/}" "$dir" && chmod 700 "$dir" || exit 1
new=${parent%/}/.lsub-up.$$
trap 'rm -f "$new"' EXIT
trap 'exit 1' HUP INT TERM
(umask 077 && cat >"$new") || exit 1
[ "$(wc -c <"$new")" -eq "$LSUB_SIZE" ] || exit 1 # lsub was killed while it sent it
if [ -n "$owner" ]; then chown "$owner" "$new" || exit 1; fi
chmod "$mode" "$new" && printf '%s\n' "$1" >"$dir/.new" && mv -f "$dir/.new" "$dir/$mark" && mv -f "$new" "$path"
