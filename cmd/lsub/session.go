package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/term"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/printable"
)

// exec runs a command in a distro with our stdio, and keeps its exit status. Where the
// command's streams are our terminal, that is in raw mode while it runs.
func (a *app) exec(ctx context.Context, d *machine.Distro, cmd distro.Command, terminal *lent) error {
	passed := make(chan int, 16)
	cmd.Crossing = true
	if dir, err := os.Getwd(); err == nil {
		cmd.HostDir = dir
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			cmd.HostDir = real // as shares are named
		}
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Signals = a.stdin, a.stdout, a.stderr, passed
	tty := terminal != nil && terminal.own == nil
	stop, broken := terminal.give(a, &cmd)
	defer stop()
	defer a.signals.passTo(nil, false)
	cmd.Reached = a.signals.delay
	cmd.Started = func() (ended func(), err error) { // from here on, signals and the terminal are the command's
		a.signals.passTo(passed, tty)
		restore := func() {}
		if tty {
			if restore, err = a.rawTerminal(); err != nil {
				err = fmt.Errorf("the terminal's raw mode: %w", err)
			}
		}
		return func() {
			restore()
			a.signals.passTo(nil, false)
		}, err
	}
	exit, err := a.distros.Exec(ctx, d, cmd)
	terminal.close()
	if a.code = exit.Status(); broken() {
		a.code, err = exitSIGPIPE, nil
	}
	return err
}

// whole lends a command the terminal as all its streams, if it is to have one.
func whole(tty bool) *lent {
	if !tty {
		return nil
	}
	return &lent{}
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
	closeConsole := openConsole()
	a.status.setRaw(true)
	return func() {
		if old != nil {
			closeConsole()
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
	for _, name := range []string{"COLORTERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION"} {
		if v := os.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
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
	io.WriteString(a.stderr, printable.Line(question)+" [y/N] ")
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
