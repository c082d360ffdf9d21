# Tells what a distro has. The functions are called by what follows.
dir=$1
[ -n "$dir" ] || dir=$HOME/.local/state/lsub/up
full() { case $1 in '~/'*) full=$HOME/${1#'~/'} ;; *) full=$1 ;; esac; }
marks() {
	for mark in "$1"/*-*; do
		[ -f "$mark" ] || continue
		text=
		read -r text <"$mark"
		printf 'mark %s %s\n' "${mark##*/}" "$text"
	done
}
packages() {
	manager=
	for tool in apt-get dnf zypper pacman apk; do
		if command -v $tool >/dev/null 2>&1; then
			manager=$tool
			break
		fi
	done
	echo "manager $manager"
	for package; do
		if has "$package"; then echo "package $package"; fi
	done
}
has() {
	case $manager in
	apt-get) dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed ;;
	dnf | zypper) rpm -q --whatprovides "$1" >/dev/null 2>&1 ;;
	pacman) pacman -Q "$1" >/dev/null 2>&1 ;;
	apk) apk info -e "$1" >/dev/null 2>&1 ;;
	*) return 1 ;;
	esac
}
file() {
	full "$2"
	[ -f "$full" ] || return 0
	sum=$(sha256sum <"$full") && echo "file $1 ${sum%% *} $(stat -L -c '%a %U %G %u %g' "$full")"
}
guard() {
	if [ -n "$2" ]; then
		full "$2"
		if [ -e "$full" ]; then echo "guard $1"; return; fi
	fi
	if [ -n "$3" ] && sh -c "$3" </dev/null >/dev/null 2>&1; then echo "guard $1"; fi
}
