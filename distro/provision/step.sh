# Runs a step of 'lsub up', whose script is stdin. $1 is the directory of marks, "" for the
# user's own, $2 the mark that the step leaves when it has succeeded, "" for none. LSUB_SIZE is
# the script's size in bytes. It prints
# "lsub-step: skip" where there is nothing to do, or "lsub-step: run" before the script's output.
set -u
dir=$1 mark=$2
[ -n "$dir" ] || dir=$HOME/.local/state/lsub/up
mkdir -p "$dir" && chmod 700 "$dir" || exit 125

# An lsub that was killed may have left its step behind.
told=
while { read -r pid <"$dir/.busy"; } 2>/dev/null && [ "$pid" != $$ ] && grep -q lsub-step "/proc/$pid/cmdline" 2>/dev/null; do
	[ -n "$told" ] || echo "waiting for process $pid, which runs a step of an earlier 'lsub up'" >&2
	told=1
	sleep 1
done
echo $$ >"$dir/.busy"

satisfied() {
	if [ -n "$mark" ] && [ -e "$dir/$mark" ]; then return 0; fi
	case $LSUB_CREATES in
	'') ;;
	'~/'*) if [ -e "$HOME/${LSUB_CREATES#'~/'}" ]; then return 0; fi ;;
	*) if [ -e "$LSUB_CREATES" ]; then return 0; fi ;;
	esac
	[ -n "$LSUB_UNLESS" ] && sh -c "$LSUB_UNLESS" </dev/null >/dev/null 2>&1
}
if satisfied; then
	rm -f "$dir/.busy"
	echo lsub-step: skip
	exit 0
fi
echo lsub-step: run

# All of the script has to have come: lsub may have been killed while it sent it.
umask 022
script=$dir/.script
(umask 077 && cat >"$script") && chmod 700 "$script" || exit 125
[ "$(wc -c <"$script")" -eq "$LSUB_SIZE" ] || exit 125
unset LSUB_CREATES LSUB_UNLESS LSUB_SIZE

# One pipe for both keeps the order of the lines.
# Where lsub goes away, the script gets SIGHUP; the mark is written if it succeeds all the same.
trap : HUP INT TERM
case $(head -c 2 "$script" | tr -d '\000') in
'#!') "$script" </dev/null 2>&1 ;;
*) sh -e "$script" </dev/null 2>&1 ;;
esac
status=$?
if [ $status -eq 0 ] && [ -n "$mark" ]; then
	sync # what the step has done is on the disk before the mark is
	printf '%s\n' "$LSUB_STEP" >"$dir/.new" && mv -f "$dir/.new" "$dir/$mark" && sync || status=125
fi
rm -f "$script" "$dir/.busy"
exit $status
