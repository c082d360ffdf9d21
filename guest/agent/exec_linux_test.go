package agent

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"testing"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/account"
	"github.com/lsub/lsub/guest/guestv1"
)

func argv(words ...string) (out [][]byte) {
	for _, w := range words {
		out = append(out, []byte(w))
	}
	return out
}

func TestCommand(t *testing.T) {
	who := &account.Account{Name: "ann", Shell: "/bin/bash"}
	env := []string{"PATH=/nowhere:/bin"}
	for _, c := range []struct {
		name string
		cmd  *guestv1.Exec
		argv []string
		file string
	}{
		{"login shell", &guestv1.Exec{}, []string{"-bash"}, "/bin/bash"},
		{"a line of shell", &guestv1.Exec{Login: true, Argv: argv("ls | wc")}, []string{"-bash", "-c", "ls | wc"}, "/bin/bash"},
		{"words through the shell", &guestv1.Exec{Login: true, Argv: argv("ls", "a b")}, []string{"-bash", "-c", `exec "$@"`, "/bin/bash", "ls", "a b"}, "/bin/bash"},
		{"by PATH", &guestv1.Exec{Argv: argv("sh", "", "-c")}, []string{"sh", "", "-c"}, "/bin/sh"},
		{"by path", &guestv1.Exec{Argv: argv("./x")}, []string{"./x"}, "./x"},
	} {
		got, file, err := command(c.cmd, who, env)
		if err != nil || !slices.Equal(got, c.argv) || file != c.file {
			t.Errorf("%s: %q, %q, %v; want %q, %q", c.name, got, file, err, c.argv, c.file)
		}
	}
	for _, bad := range []string{"", "no-such-command-anywhere", "a\x00b"} {
		if _, _, err := command(&guestv1.Exec{Argv: argv(bad)}, who, env); err == nil {
			t.Errorf("command %q was found", bad)
		}
	}
}

func TestStdinBuffer(t *testing.T) {
	host, agent := net.Pipe()
	defer host.Close()
	granted := make(chan int, 64)
	go func() {
		r := guest.NewReader(host)
		for {
			_, p, err := r.Next()
			if err != nil {
				close(granted)
				return
			}
			granted <- int(p[0])<<24 | int(p[1])<<16 | int(p[2])<<8 | int(p[3])
		}
	}()
	in := newStdinBuffer(guest.NewWriter(agent))
	in.open()
	if n := <-granted; n != guest.StdinWindow {
		t.Fatalf("first window %d", n)
	}
	chunk := bytes.Repeat([]byte("x"), guest.StdinWindow/4)
	for range 4 {
		if err := in.put(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if err := in.put([]byte("y")); err == nil {
		t.Error("more than the window was taken")
	}
	buf := make([]byte, len(chunk))
	if _, err := io.ReadFull(in, buf); err != nil {
		t.Fatal(err)
	}
	if n := <-granted; n != len(chunk) {
		t.Errorf("granted %d after reading %d", n, len(chunk))
	}
	if err := in.put([]byte("y")); err != nil {
		t.Errorf("within the new window: %v", err)
	}
	in.put(nil)
	in.fail(errors.New("late"))
	if b, err := io.ReadAll(in); err != nil || len(b) != 3*len(chunk)+1 {
		t.Errorf("read %d bytes, %v", len(b), err)
	}
	agent.Close()
}

// A stream that breaks must not look like the end of the input.
func TestStdinBufferBroken(t *testing.T) {
	in := newStdinBuffer(guest.NewWriter(io.Discard))
	in.put([]byte("part"))
	in.fail(nil)
	if b, err := io.ReadAll(in); err != io.ErrUnexpectedEOF || string(b) != "part" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestReceiveRefuses(t *testing.T) {
	for name, send := range map[string]func(w *guest.Writer){
		"a guest's frame": func(w *guest.Writer) { w.Send(guest.FrameStdout, []byte("x")) },
		"a long signal":   func(w *guest.Writer) { w.Send(guest.FrameSignal, []byte("xx")) },
		"keys of no tty":  func(w *guest.Writer) { w.Send(guest.FrameKeys, []byte("x")) },
		"a short size":    func(w *guest.Writer) { w.Send(guest.FrameResize, []byte("x")) },
	} {
		var b bytes.Buffer
		send(guest.NewWriter(&b))
		in := &hostInput{stdin: newStdinBuffer(guest.NewWriter(io.Discard)), controls: make(chan controlFrame, 1)}
		if err := in.receive(guest.NewReader(&b)); err == nil || err == io.EOF {
			t.Errorf("%s: %v", name, err)
		}
	}
}
