// Package mmdebstrap builds root file systems of Debian with the program mmdebstrap, as root
// or in a user namespace. An image does not depend on the host that builds it, nor on its
// user's environment. It has no keys, so its distros share none.
package mmdebstrap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lsub/lsub/hint"
)

// sourceDateEpoch is the latest time of a file in an image, 2026-01-01. With it, a build from
// the same packages gives the same bytes.
const sourceDateEpoch = "1767225600"

// packages are installed in addition to the essential ones and apt. There is no udev, network
// configuration, time synchronization or login on terminals: the VM does all that for its
// distros.
var packages = []string{
	"systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", // a booted system and users' sessions
	"sudo", "passwd", "login", // accounts
	"ca-certificates", "iproute2", "iputils-ping", "netbase", // network
	"procps", "less", "nano", "vim-tiny", "bash-completion", "tzdata", // usual tools of a shell
}

// setupHook runs before the first package is installed, in mmdebstrap's namespaces with the
// tree as $1. It sets the host name, because packages use it for certificates and
// configuration: it is the same on all hosts. It uses Perl because mmdebstrap is written in
// it. netbase would write the same etc/hosts.
const setupHook = `set -e
perl -e 'require "syscall.ph"; my $n = "localhost"; syscall(&SYS_sethostname(), $n, length $n) == 0 or die "sethostname: $!\n"'
echo localhost >"$1/etc/hostname"
cat >"$1/etc/hosts" <<END
127.0.0.1	localhost
::1		localhost ip6-localhost ip6-loopback
ff02::1		ip6-allnodes
ff02::2		ip6-allrouters

END
`

// customizeHook runs on the host at the end, with the tree as $1.
const customizeHook = `set -e
cd "$1"
# Each distro gets its own name and the VM's resolver.
rm -f etc/hostname etc/resolv.conf
# Modules are the VM's to load. The file lists none, and without it systemd does not look for them.
rm -f etc/modules-load.d/modules.conf
# The VM's terminals are no distro's.
rm -f etc/systemd/system/getty.target.wants/*
ln -sf /dev/null etc/systemd/system/console-getty.service
# apt's daily jobs do nothing unless they are configured; the VM trims its disk itself.
for timer in apt-daily apt-daily-upgrade fstrim; do
	rm -f etc/systemd/system/timers.target.wants/$timer.timer
done
# No copies of what was before.
rm -f etc/passwd- etc/shadow- etc/group- etc/gshadow- etc/subuid- etc/subgid- var/cache/debconf/*-old
# Keys that packages made. The agent makes keys for each distro in the place of empty ones.
# RSA host keys are not needed beside the others, and take seconds to make.
rm -f etc/ssh/ssh_host_*.pub etc/ssh/ssh_host_rsa_key var/lib/systemd/random-seed var/lib/systemd/credential.secret
for key in etc/ssh/ssh_host_*_key etc/ssl/private/ssl-cert-snakeoil.key etc/ssl/certs/ssl-cert-snakeoil.pem; do
	if [ -f $key ]; then : >$key; fi
done
find etc/ssl/certs -lname ssl-cert-snakeoil.pem -delete
# systemd need not bring /etc and /var up to date with /usr on the first boot.
touch etc/.updated var/.updated
`

// Recipe identifies the way images are built, without the fields of a Build. An image of
// another recipe is out of date.
func Recipe() string {
	return sourceDateEpoch + strings.Join(packages, " ") + setupHook + customizeHook
}

// stopWait is how long mmdebstrap may take to remove its files after the signal to stop.
const stopWait = 30 * time.Second

// Build is one run of mmdebstrap.
type Build struct {
	Suite   string   // code name
	Arch    string   // as GOARCH; "" is the host's. Of another one, this machine must be able to run programs
	Include []string // packages in addition to the usual ones
	Variant string   // of mmdebstrap; "" is minbase
	Stale   bool     // allows expired package lists; their signatures are still checked

	Report func(Step) // receives the progress, from one goroutine at a time; may be nil
	Log    *slog.Logger
}

// Step is one report of a Build's progress.
type Step struct {
	Text  string // for people
	Done  int64
	Total int64 // 0 if unknown
	Bytes bool  // Done and Total count bytes; otherwise packages
}

func (b *Build) report(s Step) {
	if b.Report != nil {
		b.Report(s)
	}
}

// Run builds the suite's root file system and calls take with it, as a plain tar archive. It
// returns the number of installed packages. If ctx ends or take fails, Run ends mmdebstrap
// and all its processes, and removes their files, before it returns.
func (b *Build) Run(ctx context.Context, take func(context.Context, io.Reader) error) (installed int, err error) {
	mode, err := b.chooseMode(ctx)
	if err != nil {
		return 0, err
	}
	tmp, err := os.MkdirTemp(workParent(), "lsub-debian-")
	if err != nil {
		return 0, err
	}
	defer b.removeTree(tmp, mode)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return 0, err
	}

	cmd := exec.Command("mmdebstrap", b.args(mode)...)
	cmd.Env = append(buildEnv(os.Environ()), "LC_ALL=C", "TMPDIR="+tmp, "SOURCE_DATE_EPOCH="+sourceDateEpoch)
	cmd.WaitDelay = stopWait // in case a lost grandchild keeps the output open
	lines := newAptLog(b.report, b.Log)
	cmd.Stderr = lines
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	// The kernel signals the child when this thread ends (see isolate), so keep the thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	isolate(cmd)
	b.report(Step{Text: "looking for packages"})
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("mmdebstrap: %w", err)
	}
	stopCtx, stop := context.WithCancel(ctx)
	defer stop()
	release := stopGroupWith(stopCtx, cmd)
	archive := &endReader{r: out}
	takeErr := take(ctx, archive)
	if takeErr != nil {
		stop()
	}
	io.Copy(io.Discard, out) // so that its cleanup never blocks on the output
	waitErr := cmd.Wait()
	release()
	installed = lines.packages()
	switch {
	case ctx.Err() != nil:
		return installed, context.Cause(ctx)
	case takeErr != nil && !archive.ended: // the run was stopped because of takeErr
		return installed, takeErr
	case waitErr != nil:
		return installed, lines.failure(waitErr)
	case takeErr != nil:
		return installed, fmt.Errorf("mmdebstrap's archive %w", takeErr)
	}
	return installed, nil
}

// keptEnv are the user's variables that are needed to reach the packages, in either case.
// Others, such as TZ, would affect the scripts of packages.
var keptEnv = []string{"http_proxy", "https_proxy", "all_proxy", "no_proxy"}

// buildEnv returns the environment of a build, from the user's.
func buildEnv(user []string) []string {
	path := "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	var env []string
	for _, v := range user {
		name, value, _ := strings.Cut(v, "=")
		switch {
		case name == "PATH" && value != "":
			path += ":" + value // mmdebstrap's tools may be in any directory
		case name == "HOME" || slices.Contains(keptEnv, strings.ToLower(name)):
			env = append(env, v)
		}
	}
	return append(env, path)
}

// stopGroupWith stops the command and its child processes when ctx ends: first with an
// interrupt. The caller calls release when the command has ended.
func stopGroupWith(ctx context.Context, cmd *exec.Cmd) (release func()) {
	exited, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-exited:
		case <-ctx.Done():
			interruptGroup(cmd)
			select {
			case <-exited:
			case <-time.After(stopWait):
			}
		}
		killGroup(cmd) // including processes that the command left running
	}()
	return func() {
		close(exited)
		<-done
	}
}

// endReader records whether its reader has reached EOF.
type endReader struct {
	r     io.Reader
	ended bool
}

func (e *endReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.ended = e.ended || err == io.EOF
	return n, err
}

// workParent returns the parent directory for mmdebstrap's temporary files. It is not in
// lsub's cache: apt and a user namespace's root have other user ids, which cannot enter a
// user's private directory.
func workParent() string {
	if dir := os.Getenv("TMPDIR"); dir != "" {
		return dir
	}
	// On disk: /tmp is in memory on many systems.
	if info, err := os.Stat("/var/tmp"); err == nil && info.IsDir() {
		return "/var/tmp"
	}
	return os.TempDir()
}

func (b *Build) args(mode string) []string {
	args := []string{
		"--mode=" + mode, "--variant=" + cmp.Or(b.Variant, "minbase"), "--format=tar", "--verbose",
		"--include=" + strings.Join(slices.Concat(packages, b.Include), ","),
		`--aptopt=Acquire::Retries "3"`,
		"--setup-hook=" + setupHook, "--customize-hook=" + customizeHook,
	}
	if b.Arch != "" && b.Arch != runtime.GOARCH {
		args = append(args, "--architectures="+b.Arch) // Debian calls those of lsub's guests as Go does
	}
	if b.Stale {
		args = append(args, `--aptopt=Acquire::Check-Valid-Until "false"`) // not kept in the image: its own apt still checks
	}
	return append(args, b.Suite, "-")
}

// chooseMode returns the mode in which mmdebstrap can create files of any owner: as root, or
// in a user namespace.
func (b *Build) chooseMode(ctx context.Context) (string, error) {
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return "", hint.New(errors.New("mmdebstrap is not installed"), "install it with 'apt install mmdebstrap uidmap'")
	}
	if os.Geteuid() == 0 {
		return "root", nil
	}
	if _, err := exec.LookPath("newuidmap"); err != nil {
		return "", hint.New(errors.New("building it without root needs newuidmap"), "install it with 'apt install uidmap'")
	}
	// mmdebstrap's own first step, run separately to get its error.
	out, err := exec.CommandContext(ctx, "mmdebstrap", "--unshare-helper", "true").CombinedOutput()
	if err == nil {
		return "unshare", nil
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	b.Log.Info("mmdebstrap cannot use user namespaces", "output", string(out))
	if u, err := user.Current(); err == nil {
		ids, _ := os.ReadFile("/etc/subuid")
		has, free := subordinateIDs(string(ids), u)
		if !has {
			return "", hint.New(fmt.Errorf("building it without root needs subordinate user ids, which %s has not", u.Username),
				fmt.Sprintf("give them with 'sudo usermod --add-subuids %[1]s --add-subgids %[1]s %[2]s'", free, u.Username))
		}
	}
	return "", hint.New(fmt.Errorf("building it without root needs user namespaces: %s", lastLine(string(out))),
		"allow them with 'sudo sysctl kernel.unprivileged_userns_clone=1 "+
			"kernel.apparmor_restrict_unprivileged_userns=0', as far as your kernel has these, or run lsub as root")
}

// removeTree removes mmdebstrap's temporary directory. It is empty unless mmdebstrap was
// killed.
func (b *Build) removeTree(dir, mode string) {
	err := os.RemoveAll(dir)
	if err != nil && mode == "unshare" {
		// The files belong to subordinate ids; only their namespace can remove them.
		ctx, cancel := context.WithTimeout(context.Background(), stopWait)
		defer cancel()
		exec.CommandContext(ctx, "mmdebstrap", "--unshare-helper", "find", dir, "-mindepth", "1", "-delete").Run()
		err = os.RemoveAll(dir)
	}
	if err != nil {
		b.Log.Warn("remove mmdebstrap's files", "err", err)
	}
}

// subordinateIDs looks for u in the text of /etc/subuid (see subuid(5)). It also returns a
// range of ids that nobody has.
func subordinateIDs(subuid string, u *user.User) (has bool, free string) {
	next := 100000 // useradd's first id
	for line := range strings.Lines(subuid) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 {
			continue
		}
		has = has || f[0] == u.Username || f[0] == u.Uid
		first, err1 := strconv.Atoi(f[1])
		count, err2 := strconv.Atoi(f[2])
		if err1 == nil && err2 == nil {
			next = max(next, first+count)
		}
	}
	return has, fmt.Sprintf("%d-%d", next, next+65535)
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
