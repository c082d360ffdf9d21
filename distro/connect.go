package distro

import (
	"context"
	"fmt"
	"net"

	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/machine"
)

// Connect connects to a TCP port on the localhost of a distro that runs. It starts nothing.
func (s *Service) Connect(ctx context.Context, d *machine.Distro, port int) (net.Conn, error) {
	return s.connect(ctx, &guestv1.Connect{Distro: d.ID, Network: "tcp", Address: fmt.Sprintf("127.0.0.1:%d", port)})
}

// ConnectSocket connects to a unix socket of a distro that runs, by its absolute path. It
// starts nothing.
func (s *Service) ConnectSocket(ctx context.Context, d *machine.Distro, path string) (net.Conn, error) {
	return s.connect(ctx, &guestv1.Connect{Distro: d.ID, Network: "unix", Address: path})
}

func (s *Service) connect(ctx context.Context, to *guestv1.Connect) (_ net.Conn, err error) {
	defer s.explain(ctx, &err)
	stream, err := s.running().Connect(ctx, to)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { stream.Conn.Close() })
	head, err := stream.Opened()
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		stream.Conn.Close()
		return nil, err
	}
	return &headed{stream.Conn, head}, nil
}

// headed is a connection whose first bytes have come already.
type headed struct {
	net.Conn
	head []byte
}

// CloseWrite passes on the end of what is written.
func (h *headed) CloseWrite() error {
	if c, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return h.Conn.Close()
}

func (h *headed) Read(p []byte) (int, error) {
	if n := copy(p, h.head); n > 0 {
		h.head = h.head[n:]
		return n, nil
	}
	return h.Conn.Read(p)
}
