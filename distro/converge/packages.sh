# Installs or removes packages: $1 is the directory of marks, $2 the package manager, $3 install
# or remove, and the packages follow. It comes after state.sh, whose has it uses.
exec 2>&1 # one pipe keeps the order of the lines
manager=$2 verb=$3
shift 3
err=$dir/.err
mkdir -p "$dir" && chmod 700 "$dir" || exit 1
limit=$(($(date +%s) + ${LSUB_LOCK_SECONDS:-300}))
# try runs a command, and again while another one holds the package manager's lock.
try() {
	while :; do
		"$@" </dev/null 2>"$err"
		status=$?
		cat "$err" >&2
		[ $status -ne 0 ] || return 0
		grep -q -i -E 'could not get lock|unable to (acquire|lock)|obtain the transaction lock|is locked|system management is locked' "$err" || return $status
		if [ "$(date +%s)" -ge "$limit" ]; then
			echo "another program has held the lock of $manager for too long" >&2
			return $status
		fi
		echo "waiting for another program that uses $manager" >&2
		sleep 1
	done
}
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a ZYPP_LOCK_TIMEOUT=60
case $manager:$verb in
apt-get:*) # one that was cut off has to be ended first
	try dpkg --configure -a || exit
	set -- -q -y -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$verb" -- "$@"
	if [ "$verb" = install ]; then try apt-get -q update || exit; fi
	try apt-get "$@" ;;
dnf:*) try dnf -y --setopt=exit_on_lock=True "$verb" "$@" ;;
zypper:*) try zypper -n "$verb" "$@" ;;
pacman:install) try pacman -Sy --noconfirm --needed "$@" ;;
pacman:remove) try pacman -Rs --noconfirm "$@" ;;
apk:install) try apk --wait 60 add --update-cache "$@" ;;
apk:remove) try apk --wait 60 del "$@" ;;
esac || exit
rm -f "$err"
