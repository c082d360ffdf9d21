package agent

import (
	"context"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest/agent/listeners"
	"github.com/lsub/lsub/guest/guestv1"
)

// WatchListeners tells what listens until the caller goes.
func (c control) WatchListeners(ctx context.Context, _ *connect.Request[guestv1.WatchListenersRequest], out *connect.ServerStream[guestv1.WatchListenersResponse]) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Before a distro is up there is nothing to tell, and better use for the
	// processor than what a watch takes to begin.
	if err := out.Send(&guestv1.WatchListenersResponse{}); err != nil {
		return err
	}
	if err := c.a.awaitDistro(ctx); err != nil {
		return err
	}
	// Its name is of use before its ports are known.
	if err := out.Send(c.a.listenersMessage(nil)); err != nil {
		return err
	}
	latest := make(chan []listeners.Listener, 1)
	watched := make(chan error, 1)
	go func() {
		watched <- listeners.Watch(ctx, c.a.log, c.a.namespaces, func(all []listeners.Listener) {
			select { // only the newest counts where the host is slow
			case <-latest:
			default:
			}
			latest <- all
		})
	}()
	c.a.openFastPath() // beside the first look
	for {
		select {
		case err := <-watched:
			return err
		case all := <-latest:
			if err := out.Send(c.a.listenersMessage(all)); err != nil {
				cancel()
				<-watched
				return err
			}
		}
	}
}

// awaitDistro waits until commands may enter a distro.
func (a *Agent) awaitDistro(ctx context.Context) error {
	for {
		a.mu.Lock()
		changed := a.changed
		var some *distro
		for _, some = range a.distros {
			break
		}
		a.mu.Unlock()
		if some == nil {
			if err := await(ctx, changed); err != nil {
				return err
			}
			continue
		}
		if err := await(ctx, some.ready); err != nil || some.err == nil {
			return err
		}
		if err := await(ctx, some.gone); err != nil {
			return err
		}
	}
}

func (a *Agent) listenersMessage(all []listeners.Listener) *guestv1.WatchListenersResponse {
	m := &guestv1.WatchListenersResponse{Networks: a.networks(), Direct: a.fastPathOpen()}
	for _, l := range all {
		m.Listeners = append(m.Listeners, &guestv1.Listener{
			Distro: l.Distro, Network: l.Network, Address: l.Addr.String(), V6Only: l.V6Only,
			Pid: int32(l.PID), Process: l.Process, Isolated: l.Isolated,
		})
	}
	return m
}
