package ttywait

import (
	"bufio"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// TestLooks follows a terminal without events, as where the kernel has none.
func TestLooks(t *testing.T) { testFollow(t, nil, "head -n1") }

// TestEvents follows one by events. Programs that poll are seen only by those.
func TestEvents(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	ev, err := Open(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Skipf("this kernel has no events: %v", err)
	}
	defer ev.Close()
	testFollow(t, ev, "head -n1")
	testFollow(t, ev, "bash -c 'read -t 600 line; echo $line'")
}

// testFollow runs a command that reads a line from a terminal, and then waits for something
// else.
func testFollow(t *testing.T, ev *Events, reader string) {
	if _, err := exec.LookPath(strings.Fields(reader)[0]); err != nil {
		t.Skip(err)
	}
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer slave.Close()
	go io.Copy(io.Discard, master)
	fd, err := unix.Open(slave.Name(), unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	x, err := ev.Watch(os.NewFile(uintptr(fd), "tty"))
	if err != nil {
		t.Fatal(err)
	}
	asks := make(chan bool, 16)
	x.Follow(func(wanted bool) { asks <- wanted })
	defer x.Close()

	fifo := filepath.Join(t.TempDir(), "go")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "read go <"+fifo+"; "+reader+"; read go <"+fifo)
	cmd.Stdin = slave
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-asks:
		t.Error("asked for before anybody reads")
	default:
	}
	wake := func() {
		if err := os.WriteFile(fifo, []byte("go\n"), 0); err != nil {
			t.Fatal(err)
		}
	}
	wake()
	if !<-asks {
		t.Error("not asked for by a reader")
	}
	if _, err := master.WriteString("typed\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "typed\n" {
		t.Errorf("read %q, %v", line, err)
	}
	if <-asks {
		t.Error("asked for where nobody reads")
	}
	wake()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
