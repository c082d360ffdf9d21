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
	return s.running().ConnectNow(ctx, to)
}
