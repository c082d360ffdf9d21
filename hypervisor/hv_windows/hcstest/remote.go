package hcstest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"

	hvwindows "github.com/lsub/lsub/hypervisor/hv_windows"
)

// Remote is a host whose streams go by TCP to a [Server], in place of Hyper-V's sockets. Its
// other methods are those of the host inside.
type Remote struct {
	hvwindows.Host
	Address string // of the server
}

// ask sends a request, and returns the connection and the answer's words.
func ask(ctx context.Context, address string, request ...any) (*net.TCPConn, *bufio.Reader, string, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, nil, "", err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if _, err := fmt.Fprintln(c, request...); err != nil {
		c.Close()
		return nil, nil, "", err
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	answer, ok := strings.CutPrefix(strings.TrimSpace(line), "ok")
	if err == nil && !ok {
		err = answerError(line)
	}
	if err != nil {
		c.Close()
		return nil, nil, "", err
	}
	return c.(*net.TCPConn), r, strings.TrimSpace(answer), nil
}

// refused is how a server says ECONNREFUSED: WSAECONNREFUSED, as an HRESULT.
const refused hvwindows.Result = 0x8007274D

// answerError returns the error that a server's line says.
func answerError(line string) error {
	code, text, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "error "), " ")
	n, err := strconv.ParseUint(code, 16, 32)
	if err != nil {
		return fmt.Errorf("the stand-in answers %q", line)
	}
	if hvwindows.Result(n) == refused {
		return syscall.ECONNREFUSED
	}
	return failure("the stand-in", hvwindows.Result(n), text)
}

// Dial opens a stream to the guest.
func (h *Remote) Dial(ctx context.Context, runtime string, port uint32) (net.Conn, error) {
	c, r, _, err := ask(ctx, h.Address, "dial", runtime, port)
	if err != nil {
		return nil, err
	}
	return &remoteConn{c, r}, nil
}

// remoteConn is a stream whose first bytes may have come with the answer.
type remoteConn struct {
	*net.TCPConn
	r *bufio.Reader
}

func (c *remoteConn) Read(b []byte) (int, error) { return c.r.Read(b) }

// WriteTo hides that of the connection, which knows nothing of those bytes.
func (c *remoteConn) WriteTo(w io.Writer) (int64, error) { return c.r.WriteTo(w) }

// Listen accepts the guest's streams.
func (h *Remote) Listen(runtime string, port uint32) (net.Listener, error) {
	c, r, _, err := ask(context.Background(), h.Address, "listen", runtime, port)
	if err != nil {
		return nil, err
	}
	return &remoteListener{TCPConn: c, r: r, address: h.Address}, nil
}

// remoteListener is told of each stream on its connection.
type remoteListener struct {
	*net.TCPConn
	mu      sync.Mutex
	r       *bufio.Reader
	address string
}

func (l *remoteListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	line, err := l.r.ReadString('\n')
	l.mu.Unlock()
	if err != nil {
		return nil, err
	}
	c, r, _, err := ask(context.Background(), l.address, "accept", strings.TrimSpace(line))
	if err != nil {
		return nil, err
	}
	return &remoteConn{c, r}, nil
}

func (l *remoteListener) Addr() net.Addr { return l.LocalAddr() }
