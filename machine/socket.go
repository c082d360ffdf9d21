package machine

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lsub/lsub/atomicfile"
)

// socketConn is a connection to the supervisor.
type socketConn interface {
	net.Conn
	CloseWrite() error
}

// listenSocket opens a unix socket at a path. Where the system has none, a port of the loopback
// interface takes its place: the file has its number, and a token that a caller has to send
// first. Who may read the file may connect, as with a socket.
func listenSocket(path string) (net.Listener, error) {
	ln, err := net.Listen("unix", path)
	if err != nil && lacksUnixSockets(err) {
		return listenLoopback(path)
	}
	return ln, err
}

// dialSocket connects to what listenSocket has opened.
func dialSocket(ctx context.Context, path string) (socketConn, error) {
	var d net.Dialer
	network, at, token := "unix", path, ""
	if fi, err := os.Lstat(path); err == nil && fi.Mode().IsRegular() {
		if at, token, err = readLoopback(path); err != nil {
			return nil, err
		}
		network = "tcp"
	}
	conn, err := d.DialContext(ctx, network, at)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, token); err != nil {
		conn.Close()
		return nil, err
	}
	return conn.(socketConn), nil
}

// loopbackMagic begins the file of a port.
const loopbackMagic = "lsub-loopback"

func readLoopback(path string) (at, token string, err error) {
	b, err := atomicfile.Read(path)
	if err != nil {
		return "", "", err
	}
	words := strings.Fields(string(b))
	if len(words) != 3 || words[0] != loopbackMagic {
		return "", "", fmt.Errorf("%s is no socket", path)
	}
	return words[1], words[2], nil
}

// tokenTimeout bounds how long a caller may take to send its token.
const tokenTimeout = 10 * time.Second

// loopback is a listener whose connections have sent the token.
type loopback struct {
	net.Listener
	path     string
	token    string
	accepted chan net.Conn
	failed   chan struct{}
	err      error // of Accept, once failed is closed
	once     sync.Once
}

func listenLoopback(path string) (net.Listener, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &loopback{Listener: ln, path: path, token: rand.Text() + rand.Text(), accepted: make(chan net.Conn), failed: make(chan struct{})}
	if err := atomicfile.Write(path, fmt.Appendf(nil, "%s %s %s\n", loopbackMagic, ln.Addr(), l.token), 0o600); err != nil {
		ln.Close()
		return nil, err
	}
	go l.run()
	return l, nil
}

func (l *loopback) run() {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			l.err = err
			close(l.failed)
			return
		}
		go l.check(conn)
	}
}

// check passes a connection on once it has sent the token.
func (l *loopback) check(conn net.Conn) {
	got := make([]byte, len(l.token))
	conn.SetReadDeadline(time.Now().Add(tokenTimeout))
	if _, err := io.ReadFull(conn, got); err != nil || subtle.ConstantTimeCompare(got, []byte(l.token)) != 1 {
		conn.Close()
		return
	}
	conn.SetReadDeadline(time.Time{})
	select {
	case l.accepted <- conn:
	case <-l.failed:
		conn.Close()
	}
}

func (l *loopback) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accepted:
		return conn, nil
	case <-l.failed:
		return nil, l.err
	}
}

// Close removes the file too, as it does with a socket.
func (l *loopback) Close() error {
	err := net.ErrClosed
	l.once.Do(func() { err = errors.Join(os.Remove(l.path), l.Listener.Close()) })
	return err
}

// Addr is the file's path.
func (l *loopback) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: l.path} }
