package machine

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// TestLoopback has what stands in for a unix socket where the system has none.
func TestLoopback(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	l, err := listenLoopback(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Addr().String(); got != path {
		t.Errorf("its address is %s, want %s", got, path)
	}
	served := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			_, err = io.Copy(conn, conn)
			conn.Close()
		}
		served <- err
	}()
	// Strangers say something else, nothing, or go away.
	at, token, err := readLoopback(path)
	if err != nil {
		t.Fatal(err)
	}
	wrong := []byte(token)
	wrong[len(wrong)-1] ^= 1
	for _, first := range [][]byte{wrong, []byte("GET / HTTP/1.1\r\n\r\n"), nil} {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		c.Write(first)
		if len(first) != len(token) {
			c.Close()
		} else if n, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("a stranger was told %d bytes", n)
		}
	}
	c, err := dialSocket(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
		t.Errorf("the echo is %q (%v)", b, err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("a closed listener accepts")
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there (%v)", err)
	}
	// One that a killed supervisor has left.
	if l, err = listenLoopback(path); err != nil {
		t.Fatal(err)
	}
	l.(*loopback).Listener.Close()
	if _, err := dialSocket(context.Background(), path); !isRefused(err) {
		t.Errorf("nobody listens any more: %v", err)
	}
	if err := os.WriteFile(path, []byte("something\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := dialSocket(context.Background(), path); err == nil {
		t.Error("another file was taken for a socket")
	}
}
