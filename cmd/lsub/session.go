package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/machine"
)

const (
	codeCommandNotFound = guestv1.ErrorCode_ERROR_CODE_COMMAND_NOT_FOUND
	codeNotExecutable   = guestv1.ErrorCode_ERROR_CODE_NOT_EXECUTABLE
)

func guestCode(err error) guestv1.ErrorCode { return guest.ErrorCode(err) }

// session is a command to run in a distro.
type session struct {
	distro machine.Distro
	argv   []string // empty for the login shell
	user   string   // "" for the distro's default user
	cd     string   // "" for the home folder
	env    []string
	tty    bool
	login  bool
	stdin  io.Reader // nil for lsub's own
}

// run runs a command in a distro and returns its exit status. Where the
// command has a terminal, ours is in raw mode meanwhile.
func (a *app) runSession(ctx context.Context, s session) (int, error) {
	cmd := &guestv1.Exec{
		Distro: s.distro.Guest(), User: []byte(s.user), Cwd: []byte(s.cd), Tty: s.tty, Login: s.login,
	}
	for _, arg := range s.argv {
		cmd.Argv = append(cmd.Argv, []byte(arg))
	}
	if s.tty {
		s.env = append(terminalEnv(), s.env...)
	}
	for _, e := range s.env {
		cmd.Env = append(cmd.Env, []byte(e))
	}
	lsub := ctx
	ctx, cancel := context.WithCancelCause(lsub)
	defer cancel(nil)
	passed := make(chan int, 16)
	if s.stdin == nil {
		s.stdin = a.stdin
	}
	stdio := guest.Stdio{Stdin: s.stdin, Stdout: a.stdout, Stderr: a.stderr, Signals: passed}
	d := &sessionDialer{Dialer: a.machine, opened: func() {
		a.status.setSoon("starting " + s.distro.Name)
		a.signals.hold()
	}}
	if s.tty {
		resize, size, stop := a.watchSize()
		defer stop()
		stdio.Resize = resize
		cmd.Rows, cmd.Cols = uint32(size.Rows), uint32(size.Cols)
	}
	restore := func() {}
	defer func() { restore() }()
	stdio.Started = func(m *guestv1.Started) { // from here on, signals and the terminal are the command's
		a.status.clear()
		a.distroWarnings(s.distro.Name, m.Warnings)
		a.signals.passTo(passed)
		if !s.tty {
			return
		}
		var err error
		if restore, err = a.rawTerminal(); err != nil {
			cancel(fmt.Errorf("the terminal's raw mode: %w", err))
		}
	}
	defer a.signals.passTo(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		a.warnWhenPaused(ctx)
	}()
	exit, err := guest.NewClient(d, a.version).Exec(ctx, cmd, stdio)
	cause := context.Cause(ctx)
	cancel(nil)
	<-watched
	restore()
	switch {
	case err == nil:
		if exit.Reason != "" {
			a.note("warning", exit.Reason)
		}
		return exit.Status(), nil
	case cause != nil:
		return 0, cause
	}
	return 0, a.machine.Explain(lsub, err)
}

// sessionDialer tells when the stream to the guest is open.
type sessionDialer struct {
	guest.Dialer
	opened func()
}

func (d *sessionDialer) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	conn, err := d.Dialer.Dial(ctx, port)
	if err != nil {
		return nil, err
	}
	d.opened()
	return conn, nil
}

// warnWhenPaused says so once when the VM is halted while a command runs in it.
func (a *app) warnWhenPaused(ctx context.Context) {
	every := a.pauseCheck
	if every == 0 {
		every = 10 * time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		st, err := a.machine.Status(ctx)
		if err == nil && st.Paused != "" {
			a.note("warning", st.Paused)
			return
		}
	}
}

// rawTerminal hands our terminal to the command byte by byte, and returns what
// gives it back. Where stdin is none, there is nothing to do.
func (a *app) rawTerminal() (restore func(), err error) {
	fd := int(a.stdin.Fd())
	if !term.IsTerminal(fd) {
		return func() {}, nil
	}
	old, err := term.MakeRaw(fd)
	if err != nil {
		return func() {}, err
	}
	a.status.setRaw(true)
	return func() {
		if old != nil {
			term.Restore(fd, old)
			a.status.setRaw(false)
			old = nil
		}
	}, nil
}

// terminalSize is the size of our terminal, of what a terminal has where there is none.
func (a *app) terminalSize() guest.Size {
	for _, f := range []any{a.stdout, a.stdin, a.stderr} {
		f, ok := f.(*os.File)
		if !ok {
			continue
		}
		if cols, rows, err := term.GetSize(int(f.Fd())); err == nil && cols > 0 && rows > 0 {
			return guest.Size{Rows: uint16(rows), Cols: uint16(cols)}
		}
	}
	return guest.Size{Rows: 24, Cols: 80}
}

// terminalEnv tells the command what our terminal can.
func terminalEnv() []string {
	env := []string{"TERM=xterm-256color"}
	if t := os.Getenv("TERM"); t != "" {
		env[0] = "TERM=" + t
	}
	if t := os.Getenv("COLORTERM"); t != "" {
		env = append(env, "COLORTERM="+t)
	}
	return env
}

// onTerminal tells whether a user sits at both ends.
func (a *app) onTerminal() bool {
	out, ok := a.stdout.(*os.File)
	return ok && term.IsTerminal(int(a.stdin.Fd())) && term.IsTerminal(int(out.Fd()))
}

// confirm asks a question on the terminal, until ctx is done.
func (a *app) confirm(ctx context.Context, question string) (bool, error) {
	a.status.clear()
	io.WriteString(a.stderr, question+" [y/N] ")
	type line struct {
		text string
		err  error
	}
	answered := make(chan line, 1)
	go func() { // stays behind where nobody answers: nothing ends a read of a terminal
		text, err := readLine(a.stdin)
		answered <- line{text, err}
	}()
	select {
	case l := <-answered:
		answer := strings.ToLower(strings.TrimSpace(l.text))
		return answer == "y" || answer == "yes", l.err
	case <-ctx.Done():
		io.WriteString(a.stderr, "\n")
		return false, ctx.Err()
	}
}

// readLine reads one byte at a time: what follows the line is not ours.
func readLine(r io.Reader) (string, error) {
	var line []byte
	for b := make([]byte, 1); ; {
		n, err := r.Read(b)
		if n > 0 && b[0] != '\n' {
			line = append(line, b[0])
			continue
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return string(line), err
	}
}
