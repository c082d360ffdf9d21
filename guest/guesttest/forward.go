package guesttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
)

// ports are those that commands listen on.
type ports struct {
	mu      sync.Mutex
	all     []*guestv1.Listener
	changed chan struct{} // closed and replaced at every change
}

// change changes the list and tells those who watch.
func (p *ports) change(f func([]*guestv1.Listener) []*guestv1.Listener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = f(p.all)
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

func (p *ports) list() ([]*guestv1.Listener, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return append([]*guestv1.Listener(nil), p.all...), p.changed
}

// WatchListeners tells which ports commands listen on.
func (g *Guest) WatchListeners(ctx context.Context, _ *connect.Request[guestv1.WatchListenersRequest], out *connect.ServerStream[guestv1.WatchListenersResponse]) error {
	for {
		all, changed := g.ports.list()
		if err := out.Send(&guestv1.WatchListenersResponse{Listeners: all}); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// listen has the guest listen on a TCP port, whose connections get back what
// they send, until a signal comes.
func listen(p *process) int {
	port, err := strconv.ParseUint(p.argv[1], 10, 16)
	if err != nil {
		fmt.Fprintln(p.stderr, err)
		return 1
	}
	l := &guestv1.Listener{
		Distro: p.distro, Network: "tcp", Pid: 42, Process: "listen", Isolated: p.g.disk.isolated(p.distro),
		Address: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(port)).String(),
	}
	close(p.trapped)
	p.g.ports.change(func(all []*guestv1.Listener) []*guestv1.Listener { return append(all, l) })
	if len(p.argv) > 2 {
		wake(p)
	}
	<-p.trap
	p.g.ports.change(func(all []*guestv1.Listener) []*guestv1.Listener {
		var rest []*guestv1.Listener
		for _, other := range all {
			if other != l {
				rest = append(rest, other)
			}
		}
		return rest
	})
	return 0
}

// serveForward serves a forwarded connection.
func (g *Guest) serveForward(c net.Conn) {
	var req guestv1.ForwardRequest
	head, err := guest.ReadMessage(c, guest.FrameRequest, &req)
	if err != nil {
		return
	}
	w := guest.NewWriter(c)
	if err := g.accepts(req.GetConnect()); err != nil {
		w.SendMessage(guest.FrameError, guest.ErrorMessage(err))
		return
	}
	if w.SendMessage(guest.FrameStarted, &guestv1.Started{}) != nil {
		return
	}
	if _, err := io.Copy(c, io.MultiReader(bytes.NewReader(head), c)); err != nil {
		return // a reset
	}
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		h.CloseWrite()
	}
}

// accepts tells whether somebody listens where the host wants to connect.
func (g *Guest) accepts(to *guestv1.Connect) error {
	addr, err := netip.ParseAddrPort(to.GetAddress())
	if err != nil {
		return guest.Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "this guest forwards nothing but connections")
	}
	all, _ := g.ports.list()
	for _, l := range all {
		if l.Isolated && l.Distro != to.Distro {
			continue
		}
		if at := netip.MustParseAddrPort(l.Address); at.Port() == addr.Port() && l.Network == to.Network {
			return nil
		}
	}
	return errors.New("connection refused")
}
