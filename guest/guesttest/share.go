package guesttest

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
)

// shares are the directories of the host that the guest has "mounted".
type shares struct {
	mu   sync.Mutex
	list map[string]*guestv1.Share
}

func (s *shares) set(m *guestv1.Share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.list == nil {
		s.list = map[string]*guestv1.Share{}
	}
	s.list[m.Path] = m
}

func (s *shares) remove(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.list, path)
}

// find returns the share that has a path of the host, or nil.
func (s *shares) find(at string) *guestv1.Share {
	s.mu.Lock()
	defer s.mu.Unlock()
	for path, m := range s.list {
		if at == path || strings.HasPrefix(at, path+"/") {
			return m
		}
	}
	return nil
}

// MountShare remembers a share.
func (g *Guest) MountShare(_ context.Context, req *connect.Request[guestv1.MountShareRequest]) (*connect.Response[guestv1.MountShareResponse], error) {
	g.shares.set(req.Msg.Share)
	return connect.NewResponse(&guestv1.MountShareResponse{}), nil
}

// UnmountShare forgets a share.
func (g *Guest) UnmountShare(_ context.Context, req *connect.Request[guestv1.UnmountShareRequest]) (*connect.Response[guestv1.UnmountShareResponse], error) {
	g.shares.remove(req.Msg.Path)
	return connect.NewResponse(&guestv1.UnmountShareResponse{}), nil
}

// streamShare remembers a share as long as its stream lasts, and asks nothing of it.
func (g *Guest) streamShare(m *guestv1.Share, s *stream, c net.Conn) {
	g.shares.set(m)
	s.w.SendMessage(guest.FrameStarted, &guestv1.Started{})
	io.Copy(io.Discard, c)
}
