package agent

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

// scripted is a listener whose Accepts are given.
type scripted struct {
	net.Listener
	next []any // a context id, or an error
}

func (s *scripted) Accept() (net.Conn, error) {
	next := s.next[0]
	s.next = s.next[1:]
	if err, ok := next.(error); ok {
		return nil, err
	}
	return &peer{cid: next.(uint32)}, nil
}

type peer struct {
	net.Conn
	cid    uint32
	closed bool
}

func (p *peer) RemoteAddr() net.Addr { return &vsock.Addr{ContextID: p.cid, Port: 1} }
func (p *peer) Close() error         { p.closed = true; return nil }

// A process of a distro, a nested VM and a lack of files keep the host from nothing.
func TestFromHost(t *testing.T) {
	var log bytes.Buffer
	end := fmt.Errorf("closed: %w", net.ErrClosed)
	l := FromHost(&scripted{next: []any{
		uint32(vsock.Local), uint32(3), fmt.Errorf("accept: %w", unix.EMFILE), uint32(4711), uint32(vsock.Host), unix.ECONNABORTED, uint32(vsock.Host), end,
	}}, slog.New(slog.NewTextHandler(&log, nil)))
	for range 2 {
		c, err := l.Accept()
		if err != nil || c.(*peer).cid != vsock.Host || c.(*peer).closed {
			t.Fatalf("got %+v, %v", c, err)
		}
	}
	if _, err := l.Accept(); err != end {
		t.Errorf("got %v, want the end", err)
	}
	if n := strings.Count(log.String(), "\n"); n != 2 {
		t.Errorf("%d lines, want 2: %s", n, &log)
	}
}
