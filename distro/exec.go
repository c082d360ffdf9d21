package distro

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/machine"
)

// Command is a command to run in a distro, and what it is given.
type Command struct {
	Argv       []string // byte for byte; empty for the login shell
	LoginShell bool     // run Argv through the login shell

	User string // a name or a number; "" is the distro's default user
	Dir  string // "" is the user's home directory
	// Crossing passes on the variables of the caller that LSUBENV and WSLENV name.
	Crossing bool
	// HostDir is where the caller is on the host. If Dir is "" and a shared folder has it,
	// the command starts there. "" is nowhere.
	HostDir string
	Env     []string // NAME=value, beside what the distro and the profile give

	Stdin          io.Reader // nil is an empty file; a Read may go on after the command's end
	Stdout, Stderr io.Writer // nil discards
	Terminal       *Terminal // nil gives it none
	Signals        <-chan int

	// Reached, where set, is called when the request goes to the guest. From here on
	// the command may run.
	Reached func()
	// Started, where set, is called when the command runs, before its output; ended is
	// called when it does not any more. An error ends the command, and is what Exec
	// returns. They are called twice where the first shell of a distro needs another
	// command before it.
	Started func() (ended func(), err error)
}

// Terminal is the terminal that a command gets. Its streams are that terminal, but for those
// that are pipes beside it.
type Terminal struct {
	Size   func() guest.Size
	Resize <-chan guest.Size // its new sizes
	Own    guest.Terminal    // carries the terminal where streams are pipes; nil where none is
	Pipes  guest.Pipes       // where Own is set; Stdin is nil where it is no pipe
}

// Exec runs a command in a distro, and starts the VM and the distro where they are off. It
// returns how the command ended, which is no error: the status is exit.Status(). A
// command that cannot be started is an error with the code of a [guest.Error]. When ctx
// ends, the command is hung up (SIGHUP).
//
// A login shell at a terminal waits for what the distro's image wants to be run before the
// first shell, or runs it. Where that fails, the error is a [FirstRunError].
func (s *Service) Exec(ctx context.Context, d *machine.Distro, c Command) (guest.Exit, error) {
	entered := *d
	env, err := s.profileEnv(ctx, d)
	if err != nil {
		return guest.Exit{}, s.machine.Explain(ctx, err)
	}
	entered.Env = env
	if c.Crossing {
		crossing, err := s.crossingEnv(ctx)
		if err != nil {
			return guest.Exit{}, err
		}
		env = append(env[:len(env):len(env)], crossing...)
	}
	c.Env = append(env[:len(env):len(env)], c.Env...)
	if d.FirstRun == nil || c.Terminal == nil || c.Terminal.Own != nil || len(c.Argv) > 0 {
		return s.exec(ctx, &entered, c)
	}
	if c.Stdin == nil {
		c.Stdin = strings.NewReader("")
	}
	keys := newKeyboard(c.Stdin)
	ready, err := s.firstRun(ctx, &entered, c, keys)
	if err != nil {
		return guest.Exit{}, s.machine.Explain(ctx, err)
	}
	stdin, giveBack := keys.lend()
	defer giveBack()
	c.Stdin = stdin
	return s.exec(ctx, ready, c)
}

// maxStarts is how often a distro is started for one command: it may end, or be stopped by
// somebody else, between its start and the command's.
const maxStarts = 5

// exec runs a command in a distro that is ready, and starts the distro where it does not run.
func (s *Service) exec(caller context.Context, d *machine.Distro, c Command) (guest.Exit, error) {
	ctx, cancel := context.WithCancelCause(caller)
	defer cancel(nil)
	req := &guestv1.Exec{
		Distro: d.Guest(), User: []byte(c.User), Cwd: []byte(c.Dir), Tty: c.Terminal != nil, Login: c.LoginShell,
		Argv: bytesOf(c.Argv), Env: bytesOf(c.Env),
	}
	if c.HostDir != "" {
		req.HostCwd = []byte(machine.GuestPath(c.HostDir))
	}
	stdio := guest.Stdio{Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr, Signals: c.Signals}
	if t := c.Terminal; t != nil {
		size := t.Size()
		req.Rows, req.Cols, stdio.Resize = uint32(size.Rows), uint32(size.Cols), t.Resize
		if t.Own != nil {
			stdio.Terminal, req.Pipes = t.Own, t.Pipes.Message()
		}
	}
	ended := func() {}
	stdio.Started = func(m *guestv1.Started) {
		s.done()
		s.warnOf(d.Name, m.Warnings)
		if m.ReadOnlyShare && c.Terminal != nil && s.machine.TellOnce(ctx) {
			s.events.Note("distros cannot change this folder of the host; 'lsub mount add --writable .' lets them")
		}
		if c.Started == nil {
			return
		}
		end, err := c.Started()
		if end != nil {
			ended = end
		}
		if err != nil {
			cancel(err)
		}
	}
	reached := func() {
		s.events.Progress(Step{Text: "starting " + d.Name, Brief: true})
		if c.Reached != nil {
			c.Reached()
		}
	}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.warnWhenPaused(ctx)
	}()
	client := guest.NewClient(reachedDialer{s.machine, reached}, s.cfg.Version)
	exit, err := client.Exec(ctx, req, stdio)
	for try := 1; guest.ErrorCode(err) == guestv1.ErrorCode_ERROR_CODE_NOT_RUNNING && try <= maxStarts; try++ {
		if err = s.start(ctx, d.ID, machine.StartOptions{Env: d.Env}); err == nil {
			exit, err = client.Exec(ctx, req, stdio)
		}
	}
	cause := context.Cause(ctx)
	cancel(nil)
	<-watched
	ended()
	s.done()
	switch {
	case err == nil:
		if exit.Reason != "" {
			s.events.Warn(exit.Reason)
		}
		return exit, nil
	case cause != nil:
		return guest.Exit{}, cause
	}
	return guest.Exit{}, s.machine.Explain(caller, err)
}

func bytesOf(texts []string) (all [][]byte) {
	for _, t := range texts {
		all = append(all, []byte(t))
	}
	return all
}

// reachedDialer tells when a stream to the guest is open.
type reachedDialer struct {
	guest.Dialer
	reached func()
}

func (d reachedDialer) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	conn, err := d.Dialer.Dial(ctx, port)
	if err != nil {
		return nil, err
	}
	d.reached()
	return conn, nil
}

// warnWhenPaused warns once when the VM is halted, until ctx ends.
func (s *Service) warnWhenPaused(ctx context.Context) {
	tick := time.NewTicker(s.cfg.PauseCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		st, err := s.machine.Status(ctx)
		if err == nil && st.Paused != "" {
			s.events.Warn(st.Paused)
			return
		}
	}
}

// FirstRunError says that what an image wants to be run before the first shell failed.
type FirstRunError struct {
	Distro string
	Status int // of the command
}

func (e *FirstRunError) Error() string {
	return fmt.Sprintf("what %s runs before its first shell ended with status %d", e.Distro, e.Status)
}

// ExitCode is the command's own.
func (e *FirstRunError) ExitCode() int { return e.Status }
