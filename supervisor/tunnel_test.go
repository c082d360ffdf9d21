package supervisor

import (
	"bytes"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// pair returns the two ends of a unix stream.
func pair(t *testing.T) (*net.UnixConn, *net.UnixConn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(shortDir(t), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.UnixConn), b.(*net.UnixConn)
}

// startTunnel returns the ends of a tunnel: the command's and the guest's.
func startTunnel(t *testing.T, ts *tunnels, head string) (command, guest *net.UnixConn) {
	t.Helper()
	command, down := pair(t)
	up, guest := pair(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ts.run(down, []byte(head), up)
	}()
	t.Cleanup(func() {
		command.Close()
		guest.Close()
		<-ended
	})
	return command, guest
}

func TestTunnelHalfClose(t *testing.T) {
	var ts tunnels
	command, guest := startTunnel(t, &ts, "head ")
	data := bytes.Repeat([]byte("request "), 1<<17) // more than any buffer
	go func() {
		command.Write(data)
		command.CloseWrite()
	}()
	got, err := io.ReadAll(guest) // the end of file comes through
	if err != nil || string(got) != "head "+string(data) {
		t.Fatalf("the guest read %d bytes, %v", len(got), err)
	}
	go func() { // and the other direction is still open
		guest.Write(data)
		guest.Close()
	}()
	if got, err := io.ReadAll(command); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the command read %d bytes, %v", len(got), err)
	}
}

// TestTunnelLastWords has a guest stop reading and then say how it ended.
func TestTunnelLastWords(t *testing.T) {
	var ts tunnels
	command, guest := startTunnel(t, &ts, "")
	guest.CloseRead()
	written := make(chan struct{})
	go func() {
		defer close(written)
		command.Write(make([]byte, 16<<20)) // more than any buffer
	}()
	<-written
	guest.Write([]byte("exit 7"))
	guest.Close()
	if got, _ := io.ReadAll(command); string(got) != "exit 7" {
		t.Errorf("the command read %q", got)
	}
}

func TestTunnelReset(t *testing.T) {
	var ts tunnels
	command, guest := startTunnel(t, &ts, "")
	guest.Write([]byte("never read")) // closing with this unread is a reset
	command.Close()
	if _, err := io.ReadAll(guest); err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Error(err)
	}
	if _, err := guest.Write([]byte("x")); err == nil {
		if _, err = guest.Read(make([]byte, 1)); err == nil {
			t.Error("the guest's end outlived the command")
		}
	}
}

func TestTunnelsClose(t *testing.T) {
	var ts tunnels
	var ends []*net.UnixConn
	for range 10 {
		command, guest := startTunnel(t, &ts, "x") // the x shows that the tunnel stands
		guest.Read(make([]byte, 1))
		ends = append(ends, command, guest)
	}
	ts.close()
	for _, c := range ends {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a tunnel is still open")
		}
	}
	down, far := pair(t)
	up, _ := pair(t)
	ts.run(down, nil, up) // after the end there are no new ones
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func TestTunnelsMany(t *testing.T) {
	var ts tunnels
	var wg sync.WaitGroup
	for range 100 {
		command, guest := startTunnel(t, &ts, "")
		wg.Go(func() { io.Copy(guest, guest); guest.CloseWrite() })
		wg.Go(func() {
			data := bytes.Repeat([]byte("x"), 1<<16)
			go func() { command.Write(data); command.CloseWrite() }()
			if got, err := io.ReadAll(command); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
}
