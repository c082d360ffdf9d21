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
	latest := make(chan []listeners.Listener, 1)
	watched := make(chan error, 1)
	go func() {
		watched <- listeners.Watch(ctx, c.a.log, func(all []listeners.Listener) {
			select { // only the newest counts where the host is slow
			case <-latest:
			default:
			}
			latest <- all
		})
	}()
	for {
		select {
		case err := <-watched:
			return err
		case all := <-latest:
			if err := out.Send(listenersMessage(all)); err != nil {
				cancel()
				<-watched
				return err
			}
		}
	}
}

func listenersMessage(all []listeners.Listener) *guestv1.WatchListenersResponse {
	m := &guestv1.WatchListenersResponse{}
	for _, l := range all {
		m.Listeners = append(m.Listeners, &guestv1.Listener{
			Distro: l.Distro, Network: l.Network, Address: l.Addr.String(), V6Only: l.V6Only,
			Pid: int32(l.PID), Process: l.Process,
		})
	}
	return m
}
