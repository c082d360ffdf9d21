//go:build unix

package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/term"

	"github.com/lsub/lsub/distro"
)

// terminal is an lsub that a user runs in a terminal.
type terminal struct {
	t        *testing.T
	cmd      *exec.Cmd
	user     *os.File // the user's end
	tty      *os.File // lsub's end
	before   *term.State
	seen     bytes.Buffer
	finished chan error
}

// testHome returns the environment of an lsub with a distro, whose supervisor
// ends with the test.
func testHome(t *testing.T) []string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lsub-")
	if err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "HOME="+dir, "LSUB_HOME="+filepath.Join(dir, "home"), "XDG_RUNTIME_DIR="+dir,
		"XDG_CACHE_HOME="+dir, "TERM=xterm", "COLORTERM=truecolor", "GORACE=atexit_sleep_ms=0")
	lsub := func(args ...string) {
		t.Helper()
		cmd := exec.Command("lsub", args...)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("lsub %v: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() {
		lsub("shutdown", "--force")
		os.RemoveAll(dir)
	})
	lsub("install", "debian")
	return env
}

func openTerminal(t *testing.T, env []string, args ...string) *terminal {
	t.Helper()
	return startAtTerminal(t, env, func(*exec.Cmd) {}, args...)
}

// startAtTerminal starts lsub at a terminal after change, which may set streams that are
// none.
func startAtTerminal(t *testing.T, env []string, change func(*exec.Cmd), args ...string) *terminal {
	t.Helper()
	user, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	x := &terminal{t: t, cmd: exec.Command("lsub", args...), user: user, tty: tty, finished: make(chan error, 1)}
	t.Cleanup(func() {
		x.cmd.Process.Kill()
		user.Close()
		tty.Close()
	})
	if err := pty.Setsize(user, &pty.Winsize{Rows: 40, Cols: 132}); err != nil {
		t.Fatal(err)
	}
	if x.before, err = term.GetState(int(tty.Fd())); err != nil {
		t.Fatal(err)
	}
	x.cmd.Env = env
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr, x.cmd.ExtraFiles = tty, tty, tty, []*os.File{tty}
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3}
	change(x.cmd)
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { x.finished <- x.cmd.Wait() }()
	return x
}

// expect reads on until text has come, and forgets what was before it.
func (x *terminal) expect(text string) {
	x.t.Helper()
	b := make([]byte, 4096)
	for !strings.Contains(x.seen.String(), text) {
		n, err := x.user.Read(b)
		if err != nil {
			x.t.Fatalf("%v, and %q has not come; seen: %q", err, text, &x.seen)
		}
		x.seen.Write(b[:n])
	}
	_, rest, _ := strings.Cut(x.seen.String(), text)
	x.seen.Reset()
	x.seen.WriteString(rest)
}

func (x *terminal) write(text string) {
	x.t.Helper()
	if _, err := io.WriteString(x.user, text); err != nil {
		x.t.Fatal(err)
	}
}

// exits wants lsub to end with a status, and the terminal to be as it was.
func (x *terminal) exits(want int) {
	x.t.Helper()
	err := <-x.finished
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	}
	if got != want {
		x.t.Errorf("exit status %d, want %d; seen: %q", got, want, &x.seen)
	}
	after, err := term.GetState(int(x.tty.Fd()))
	if err != nil || !reflect.DeepEqual(after, x.before) {
		x.t.Errorf("the terminal is not as it was: %v", err)
	}
}

func TestTerminalShell(t *testing.T) {
	env := testHome(t)
	x := openTerminal(t, env)
	x.expect("$ ")
	x.write("stty size\r")
	x.expect("40 132")
	if err := pty.Setsize(x.user, &pty.Winsize{Rows: 50, Cols: 100}); err != nil {
		t.Fatal(err)
	}
	x.write("winch\r")
	x.expect("50 100")
	x.write("env\r")
	x.expect("COLORTERM=truecolor")
	x.expect("TERM=xterm")
	x.write("exit 3\r")
	x.exits(3)

	x = openTerminal(t, env)
	x.expect("$ ")
	x.write("\x04") // Ctrl-D
	x.exits(0)

	x = openTerminal(t, env)
	x.expect("$ ")
	if err := x.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	x.exits(128 + 15)
}

func TestTerminalExec(t *testing.T) {
	env := testHome(t)
	x := openTerminal(t, env, "exec", "-t", "debian", "--", "stty", "size")
	x.expect("40 132")
	x.exits(0)
	x = openTerminal(t, env, "exec", "-t", "debian", "--", "nonsense")
	x.expect("lsub: error: command not found: nonsense\r\n")
	x.exits(127)
	// Without -t the command has no terminal, although we have.
	x = openTerminal(t, env, "exec", "debian", "--", "stty", "size")
	x.expect("standard input is no terminal")
	x.exits(1)
}

// TestTerminalDies has the VM die under a shell.
func TestTerminalDies(t *testing.T) {
	x := openTerminal(t, testHome(t))
	x.expect("$ ")
	x.write("panic\r")
	x.expect("lsub: error: the VM died: vm lsub-default: the guest crashed\r\n")
	x.exits(125)
}

func TestTerminalAsks(t *testing.T) {
	env := testHome(t)
	x := openTerminal(t, env, "unregister", "debian")
	x.expect("Delete debian with all its files? [y/N] ")
	x.write("\r")
	x.exits(1)
	x = openTerminal(t, env, "unregister", "debian")
	x.expect("[y/N] ")
	x.write("\x03") // Ctrl-C
	x.expect("lsub: error: interrupted")
	x.exits(130)
	x = openTerminal(t, env, "list", "-q")
	x.expect("debian\r\n")
	x.exits(0)
	x = openTerminal(t, env, "unregister", "debian")
	x.expect("[y/N] ")
	x.write("y\r")
	x.exits(0)
	x = openTerminal(t, env, "list", "--json")
	x.expect("[]\r\n")
	x.exits(0)
}

// TestTerminalProgress looks at what long work shows a user.
func TestTerminalProgress(t *testing.T) {
	x := openTerminal(t, testHome(t), "install", "debian", "--name", "two")
	x.expect("downloading packages")
	x.expect("two is installed")
	x.exits(0)
}

// A warning does not stand behind the bar, nor the bar behind the warning: each
// has its line.
func TestTerminalWarning(t *testing.T) {
	user, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	if err := pty.Setsize(user, &pty.Winsize{Rows: 40, Cols: 100}); err != nil {
		t.Fatal(err)
	}
	a := &app{stderr: tty, status: newStatusLine(tty)}
	log := slog.New(slog.NewTextHandler(logWriter{a}, nil))
	p := a.newProgress()
	step := distro.Step{Text: "unpacking", Done: 30, Total: 100}
	p.step(step)
	a.note("warning", "one")
	p.step(step)
	log.Warn("two")
	step.Done = 60
	p.step(step)
	p.end()
	a.note("warning", "three")
	tty.Close()
	seen, _ := io.ReadAll(user) // ends with an error when the other side has gone
	screen := onScreen(string(seen))
	for i, want := range []string{"lsub: warning: one", "msg=two", "lsub: warning: three"} {
		if i >= len(screen) || !strings.HasSuffix(screen[i], want) || strings.Contains(screen[i], "unpacking") {
			t.Errorf("line %d is not %q: %q; seen: %q", i, want, screen, seen)
		}
	}
	if got := strings.Count(string(seen), "unpacking"); got < 3 {
		t.Errorf("the bar was shown %d times: %q", got, seen)
	}
}

// onScreen returns the lines that a terminal shows after text.
func onScreen(text string) (lines []string) {
	var line []rune
	at := 0
	for text != "" {
		r := []rune(text)[0]
		rest := text[len(string(r)):]
		switch {
		case strings.HasPrefix(text, "\x1b[K"):
			line, rest = line[:at], text[3:]
		case r == '\r':
			at = 0
		case r == '\n':
			lines, line, at = append(lines, strings.TrimRight(string(line), " ")), nil, 0
		case at < len(line):
			line[at] = r
			at++
		default:
			line = append(line, r)
			at++
		}
		text = rest
	}
	return lines
}
