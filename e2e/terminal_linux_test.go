package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// terminal is lsub at a terminal, and its output.
type terminal struct {
	t    *testing.T
	tty  *os.File
	done chan error

	mu    sync.Mutex
	shown bytes.Buffer
	grew  chan struct{}
}

func openTerminal(t *testing.T, h *host, args ...string) *terminal {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), slow)
	return startTerminal(t, cancel, h.command(ctx, args...))
}

// startTerminal starts a program of the host at a terminal.
func startTerminal(t *testing.T, cancel func(), cmd *exec.Cmd) *terminal {
	t.Helper()
	cmd.Env = append(cmd.Env, "TERM=xterm-256color")
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	if tty, err = pollable(tty); err != nil {
		t.Fatal(err)
	}
	x := &terminal{t: t, tty: tty, done: make(chan error, 1), grew: make(chan struct{}, 1)}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := tty.Read(buf)
			x.mu.Lock()
			x.shown.Write(buf[:n])
			x.mu.Unlock()
			select {
			case x.grew <- struct{}{}:
			default:
			}
			if err != nil {
				x.done <- cmd.Wait()
				return
			}
		}
	}()
	t.Cleanup(func() { cancel(); tty.Close() })
	return x
}

// pollable returns the terminal as a file whose Close does not wait for a Read in progress.
// pty has called Fd, which makes a file blocking.
func pollable(tty *os.File) (*os.File, error) {
	defer tty.Close()
	fd, err := unix.Dup(int(tty.Fd()))
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), tty.Name()), nil
}

// resize changes the terminal's size.
func (x *terminal) resize(rows, cols uint16) {
	x.t.Helper()
	rc, err := x.tty.SyscallConn()
	if err != nil {
		x.t.Fatal(err)
	}
	rc.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
	if err != nil {
		x.t.Fatal(err)
	}
}

func (x *terminal) send(text string) {
	x.t.Helper()
	if _, err := x.tty.WriteString(text); err != nil {
		x.t.Fatal(err)
	}
}

// expect waits for the text, and drops all output up to it.
func (x *terminal) expect(text string) string {
	x.t.Helper()
	deadline := time.After(2 * time.Minute)
	for {
		x.mu.Lock()
		shown := x.shown.String()
		if i := strings.Index(shown, text); i >= 0 {
			x.shown.Next(i + len(text))
			x.mu.Unlock()
			return shown[:i]
		}
		x.mu.Unlock()
		select {
		case <-x.grew:
		case <-deadline:
			x.t.Fatalf("%q is not shown, but:\n%s", text, shown)
		}
	}
}

func TestTerminal(t *testing.T) {
	h := debian(t)
	h.ok(t, "start", "debian")
	x := openTerminal(t, h)
	x.expect("@debian:~")
	// The quotes distinguish the echoed input from the output.
	x.send("stty -echo; PS1='ready> '\n")
	x.expect("ready> ")
	x.send("stty size; echo $TERM; tput colors; tty\n")
	x.expect("24 80")
	x.expect("xterm-256color")
	x.expect("/dev/pts/")
	x.expect("ready> ")
	x.resize(33, 101)
	// The size and the input take different paths, so the size may come later.
	for shown := ""; !strings.Contains(shown, "33 101"); shown = x.expect("ready> ") {
		x.send("stty size\n")
	}
	x.send("sh -c 'echo wait''ing; exec sleep 1000'\n")
	x.expect("waiting")
	x.send("\x03")
	x.expect("ready> ")
	x.send("echo $?\n")
	x.expect("130")
	x.send("seq 1 500 | less\n")
	x.expect("\x1b[?1049h") // the alternate screen
	x.expect("32")
	x.send("G")
	x.expect("500")
	x.send("q")
	x.expect("\x1b[?1049l")
	x.send("vi /tmp/edited\n")
	x.expect("/tmp/edited")
	x.send("ihello from vi\x1b:wq\r")
	x.expect("ready> ")
	x.send("cat /tmp/edited; exit 5\n")
	x.expect("hello from vi")
	if err := <-x.done; err == nil || err.Error() != "exit status 5" {
		t.Errorf("the shell ended with %v, want exit status 5", err)
	}
}

// A terminal that closes hangs up its foreground job, even in another process group than
// lsub's command, but no process that was detached from it.
func TestTerminalHangUp(t *testing.T) {
	h := debian(t)
	h.sh(t, "debian", "rm -f /tmp/hung /tmp/stays")
	job := "trap 'echo x >/tmp/hung; exit' HUP; (setsid sh -c ': >/tmp/stays; exec sleep 1234' &); until [ -e /tmp/stays ]; do sleep 0.1; done; echo ready; while :; do read line; done"
	x := openTerminal(t, h, "exec", "-t", "debian", "--", "bash", "-c", `set -m; sh -c "$0"`, job)
	x.expect("ready")
	x.tty.Close()
	h.sh(t, "debian", "timeout 60 sh -c 'until [ -e /tmp/hung ]; do sleep 0.1; done'; pgrep -f 'sleep 123[4]'; pkill -f 'sleep 123[4]'")
}
