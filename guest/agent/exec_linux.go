package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/account"
	"github.com/lsub/lsub/guest/agent/distrofile"
	"github.com/lsub/lsub/guest/agent/nsthread"
	"github.com/lsub/lsub/guest/agent/procfs"
	"github.com/lsub/lsub/guest/agent/ttywait"
	"github.com/lsub/lsub/guest/guestv1"
)

// exec runs a command in a distro for a stream, and returns how it ended. When
// ctx is done, the host is gone: the command is hung up.
func (a *Agent) exec(ctx context.Context, cmd *guestv1.Exec, in *hostInput, w *guest.Writer) (*guestv1.Exit, error) {
	var d *distro
	var p *process
	before, err := whileWaiting(ctx, in.controls, func(ctx context.Context) (err error) {
		if d, err = a.enter(cmd.Distro.GetId()); err != nil {
			return err
		}
		if p, err = d.spawn(ctx, cmd, a.ttyEvents(cmd)); err != nil && (errors.Is(err, errStopping) || procfs.IsExiting(d.pid)) {
			err = guest.NotRunning()
		}
		return err
	})
	if d != nil {
		defer d.endSession()
	}
	switch {
	case p == nil && before.signal != 0:
		return &guestv1.Exit{Signal: int32(before.signal)}, nil
	case err != nil:
		return nil, err
	}
	in.open()
	w.SendMessage(guest.FrameStarted, &guestv1.Started{Warnings: append(d.takeWarnings(), p.warnings...), ReadOnlyShare: p.inReadOnlyShare})
	p.resize(before.rows, before.cols)
	p.signal(before.signal) // one that came just as the command began
	pressure := d.group.Pressure()
	exit, err := p.serve(ctx, in, w)
	if err == nil && wasKilled(exit) {
		if why := d.whyKilled(pressure, d.group.Pressure()); why != "" {
			exit.Reason = "killed: " + why
		}
	}
	return exit, err
}

// wasKilled tells whether a command was killed, or is a shell whose last one was.
func wasKilled(e *guestv1.Exit) bool {
	return e.Signal == int32(unix.SIGKILL) || e.Code == 128+int32(unix.SIGKILL)
}

// whileWaiting runs f, whose context ends when a signal comes from the host: it
// is for a command that does not run yet. It returns what came meanwhile: the
// signal, and the last size of the terminal.
func whileWaiting(ctx context.Context, controls <-chan controlFrame, f func(context.Context) error) (before controlFrame, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-done:
				return
			case c := <-controls:
				if c.signal == 0 {
					before.rows, before.cols = c.rows, c.cols
					continue
				}
				before.signal = c.signal
				cancel()
				return
			}
		}
	})
	err = f(ctx)
	close(done)
	watching.Wait()
	return before, err
}

// enter begins a session in a distro that commands may enter. The caller ends it.
func (a *Agent) enter(id string) (*distro, error) {
	d := a.lookup(id)
	if d == nil {
		return nil, guest.NotRunning()
	}
	select {
	case <-d.ready:
	default:
		return nil, guest.NotRunning()
	}
	// One that shuts down from inside is as good as off: the next start waits for its end.
	if d.err != nil || d.shutsDown() && !d.hangs.Load() || !d.beginSession() {
		return nil, guest.NotRunning()
	}
	return d, nil
}

// process is a command that runs in a distro, and our ends of its stdio.
type process struct {
	proc   *os.Process
	stdin  *os.File // nil on a terminal
	stdout *os.File // nil on a terminal
	stderr *os.File // nil on a terminal
	tty    *os.File // master of the terminal, or nil
	// waits tells when processes wait for the terminal; nil where all streams are it.
	waits *ttywait.Terminal

	warnings        []string // about who it runs as
	inReadOnlyShare bool
}

// forkTimeout is how long a distro may take over a command's start: looking up
// the user, the program and the directory, and the fork.
const forkTimeout = 30 * time.Second

var errStuck = errors.New("the distro does not answer")

// spawn starts a command in the distro.
func (d *distro) spawn(ctx context.Context, cmd *guestv1.Exec, ev *ttywait.Events) (*process, error) {
	who, err := onNSThread(ctx, d, func() (*account.Account, error) { return account.ForCommand(cmd) }, func(*account.Account) {})
	if err != nil {
		return nil, err
	}
	if wantsManager(who, cmd) {
		d.awaitUserManager(ctx, who)
	}
	p, err := onNSThread(ctx, d, func() (*process, error) { return d.fork(cmd, who, ev) }, (*process).abandon)
	switch {
	case errors.Is(err, unix.EAGAIN) && d.group.PidsFull():
		return nil, d.tooMany()
	case p != nil:
		p.warnings = append(who.Warnings, p.warnings...)
	}
	return p, err
}

// onNSThread runs f on the distro's namespace thread. It is [nsthread.Call] with a
// time limit, after which the distro gets a new thread: the old one may hang for ever.
func onNSThread[T any](ctx context.Context, d *distro, f func() (T, error), drop func(T)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, forkTimeout, errStuck)
	defer cancel()
	thread := d.currentThread()
	v, err := nsthread.Call(ctx, thread, f, drop)
	switch {
	case errors.Is(err, errStuck):
		d.replaceThread(thread)
		return v, guest.Errorf(guestv1.ErrorCode_ERROR_CODE_START_FAILED, "a file system in it may hang; 'lsub stop "+d.spec.Name+"' ends the distro",
			"distro %s does not answer within %s", d.spec.Name, forkTimeout)
	case errors.Is(err, nsthread.ErrClosed) && d.currentThread() != thread:
		return onNSThread(ctx, d, f, drop) // there is a new one
	case errors.Is(err, nsthread.ErrClosed):
		return v, errStopping
	}
	return v, err
}

// abandon ends a command that nobody waits for any more.
func (p *process) abandon() {
	p.proc.Kill()
	p.proc.Wait()
	p.close()
}

// fork starts the command as the user. It runs on the namespace thread.
func (d *distro) fork(cmd *guestv1.Exec, who *account.Account, ev *ttywait.Events) (*process, error) {
	env := account.Environment(who, cmd)
	argv, file, err := command(cmd, who, env)
	if err != nil {
		return nil, err
	}
	dir, err := workingDir(string(cmd.Cwd), who)
	if err != nil {
		return nil, err
	}
	inReadOnly := false
	if at, share := d.hostDir(string(cmd.HostCwd)); share != nil && len(cmd.Cwd) == 0 && len(cmd.HostCwd) > 0 && isDir(at) {
		dir, inReadOnly = at, share.ReadOnly
	}
	group, err := d.group.OpenSessions()
	if err != nil {
		return nil, err
	}
	defer group.Close()
	attr := &os.ProcAttr{Dir: dir, Env: env, Sys: &unix.SysProcAttr{
		Setsid:      true,
		UseCgroupFD: true, CgroupFD: int(group.Fd()),
		Credential: &syscall.Credential{Uid: who.UID, Gid: who.GID, Groups: who.Groups},
	}}
	p := &process{inReadOnlyShare: inReadOnly}
	theirs, ctty, err := p.openStdio(cmd, who, ev)
	if err != nil {
		return nil, err
	}
	defer closeAll(theirs)
	attr.Files = theirs
	if p.tty != nil {
		attr.Sys.Setctty, attr.Sys.Ctty = true, ctty
	}
	// The thread's own, and the command's with it.
	defer unix.Umask(unix.Umask(who.Umask))
	if p.proc, err = os.StartProcess(file, argv, attr); err != nil {
		p.close()
		return nil, startError(err, file, dir)
	}
	for _, l := range who.Limits {
		if err := setLimit(p.proc.Pid, l); err != nil {
			p.warnings = append(p.warnings, fmt.Sprintf("a limit of the distro's /etc/security cannot be set: %v", err))
		}
	}
	return p, nil
}

// setLimit limits a process that has just begun.
func setLimit(pid int, l account.Limit) error {
	var now unix.Rlimit
	if err := unix.Prlimit(pid, l.Resource, nil, &now); err != nil {
		return err
	}
	want := l.Over(now)
	return unix.Prlimit(pid, l.Resource, &want, nil)
}

// command returns the argument list and the program's path. It runs on the
// namespace thread.
func command(cmd *guestv1.Exec, who *account.Account, env []string) (argv []string, file string, err error) {
	for _, a := range cmd.Argv {
		argv = append(argv, string(a))
	}
	switch {
	case len(argv) == 0:
		argv, file = []string{"-" + path.Base(who.Shell)}, who.Shell
	case cmd.Login && len(argv) == 1:
		// One word is a line of shell, as with ssh.
		argv, file = []string{"-" + path.Base(who.Shell), "-c", argv[0]}, who.Shell
	case cmd.Login:
		// Several are an argument list, kept as it is.
		argv, file = append([]string{"-" + path.Base(who.Shell), "-c", `exec "$@"`, who.Shell}, argv...), who.Shell
	default:
		file = argv[0]
	}
	if strings.ContainsRune(file, 0) {
		return nil, "", guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "the command has a NUL byte")
	}
	if strings.Contains(file, "/") {
		return argv, file, nil
	}
	if file == "" {
		return nil, "", guest.Errorf(guestv1.ErrorCode_ERROR_CODE_COMMAND_NOT_FOUND, "", "the command is empty")
	}
	for _, dir := range strings.Split(account.LookupEnv(env, "PATH"), ":") {
		p := path.Join("/", dir, file)
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return argv, p, nil
		}
	}
	return nil, "", guest.CommandNotFound(distrofile.Shown(file))
}

// workingDir resolves the directory that a command starts in. It runs on the namespace
// thread.
func workingDir(cwd string, who *account.Account) (string, error) {
	if cwd == "" || cwd == "~" {
		if isDir(who.Home) {
			return who.Home, nil
		}
		return "/", nil
	}
	dir := cwd
	if rest, ok := strings.CutPrefix(cwd, "~/"); ok {
		dir = path.Join(who.Home, rest)
	}
	if !path.IsAbs(dir) || !isDir(dir) {
		return "", guest.NoDirectory(cwd)
	}
	return dir, nil
}

func isDir(p string) bool {
	info, err := os.Stat(p)
	return err == nil && info.IsDir()
}

// startError says why a program could not be started.
func startError(err error, file, dir string) error {
	switch {
	case errors.Is(err, unix.ENOENT) && !distrofile.Exists(file):
		return guest.CommandNotFound(distrofile.Shown(file))
	case errors.Is(err, unix.ENOENT):
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_NOT_EXECUTABLE, "", "run %s: its interpreter is missing", distrofile.Shown(file))
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOEXEC), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		var errno unix.Errno
		errors.As(err, &errno)
		return guest.NotExecutable(distrofile.Shown(file), distrofile.Shown(dir), errno)
	case errors.Is(err, unix.E2BIG):
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_NOT_EXECUTABLE, "", "run %s: argument list too long", distrofile.Shown(file))
	}
	return err
}
