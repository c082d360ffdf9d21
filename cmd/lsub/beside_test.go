//go:build unix

package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
)

// A command whose streams are all pipes has the terminal as /dev/tty, and its pipes carry
// nothing else.
func TestTerminalBesidePipes(t *testing.T) {
	env := testHome(t)
	var out, errOut bytes.Buffer
	x := startAtTerminal(t, env, func(c *exec.Cmd) {
		c.Stdin, c.Stdout, c.Stderr = strings.NewReader("not a key\n"), &out, &errOut
	}, "ask", "name?")
	x.expect("name?")
	x.write("Ann\r")
	x.exits(0)
	if out.String() != "answer \"Ann\"\n" || errOut.Len() > 0 {
		t.Errorf("stdout %q, stderr %q", &out, &errOut)
	}
	// Bytes are those of the pipe, whatever a terminal would make of them.
	in := []byte("a\nb\r\n\x03\x04\x00\xff\n")
	out.Reset()
	x = startAtTerminal(t, env, func(c *exec.Cmd) { c.Stdin, c.Stdout = bytes.NewReader(in), &out }, "cat")
	x.exits(0)
	if !bytes.Equal(out.Bytes(), in) {
		t.Errorf("cat wrote %q", &out)
	}
}

// Streams that are the terminal stay so where another is a pipe.
func TestTerminalBesideOnePipe(t *testing.T) {
	env := testHome(t)
	var out, errOut bytes.Buffer
	x := startAtTerminal(t, env, func(c *exec.Cmd) { c.Stdout = &out }, "cat")
	x.write("by hand\n\x04")
	x.exits(0)
	if out.String() != "by hand\n" {
		t.Errorf("stdout %q", &out)
	}
	x = startAtTerminal(t, env, func(c *exec.Cmd) { c.Stdin = strings.NewReader("piped\n") }, "cat")
	x.expect("piped\r")
	x.exits(0)
	x = startAtTerminal(t, env, func(c *exec.Cmd) { c.Stderr = &errOut }, "warn", "oops")
	x.exits(0)
	if errOut.String() != "oops\n" {
		t.Errorf("stderr %q", &errOut)
	}
	x = startAtTerminal(t, env, func(c *exec.Cmd) { c.Stdin = strings.NewReader("") }, "ttysize")
	x.expect("size 40 132")
	if err := pty.Setsize(x.user, &pty.Winsize{Rows: 50, Cols: 100}); err != nil {
		t.Fatal(err)
	}
	x.expect("size 50 100")
	x.exits(0)
}

// While no process of the distro waits for keys, they are those of the host's programs, and
// the terminal stays in their mode. Ctrl-C is a signal, as ever.
func TestTerminalStaysTheHosts(t *testing.T) {
	env := testHome(t)
	fifo := filepath.Join(t.TempDir(), "runs")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	x := startAtTerminal(t, env, func(c *exec.Cmd) { c.Stdout = &out }, "trap", fifo)
	f, err := os.Open(fifo) // until the command runs
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	keys := bufio.NewReader(x.tty)
	for _, line := range []string{"first\n", "second\n"} {
		x.write(line)
		if got, err := keys.ReadString('\n'); err != nil || got != line {
			t.Fatalf("a program of the host read %q, %v", got, err)
		}
	}
	x.write("\x03")
	x.exits(0)
	if out.String() != "signal 2\n" {
		t.Errorf("stdout %q", &out)
	}
}

// A pipe that breaks ends lsub as it ends others, and the terminal is as it was.
func TestTerminalBesideBrokenPipe(t *testing.T) {
	env := testHome(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	x := startAtTerminal(t, env, func(c *exec.Cmd) { c.Stdout = w }, "cat")
	w.Close()
	x.write("nobody reads this\n")
	x.exits(exitSIGPIPE)
}

func TestNoTerminalBesidePipes(t *testing.T) {
	env := testHome(t)
	// There is none.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	x := startAtTerminal(t, env, func(c *exec.Cmd) {
		c.Stdin, c.Stdout, c.Stderr, c.ExtraFiles = nil, w, w, nil
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	}, "ask", "name?")
	w.Close()
	x.exits(1)
	if said, _ := io.ReadAll(r); !strings.Contains(string(said), "No such device") {
		t.Errorf("said %q", said)
	}
	// Nobody asked for it: exec has -t.
	var out bytes.Buffer
	x = startAtTerminal(t, env, func(c *exec.Cmd) { c.Stdout = &out }, "exec", "debian", "--", "ask", "name?")
	x.expect("No such device")
	x.exits(1)
}
