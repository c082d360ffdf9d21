package supervisor

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/machine/supervisorv1"
	"github.com/lsub/lsub/netstack/forward"
	"github.com/lsub/lsub/netstack/peeruser"
	"github.com/lsub/lsub/profile"
)

// forwarder is a [Forwarder]: it translates between the profile's rules,
// the guest's protocol and package forward, which knows neither.
type forwarder struct {
	profile *profile.Profile
	read    func() map[string]string // the names of the distros, by id
	own     *addresses
	version string
	log     *slog.Logger
	names   atomic.Pointer[map[string]string] // as they were read last

	f     *forward.Forwarder
	guest *forwardGuest
}

func newForwarder(p *profile.Profile, m *machine.Machine, own *addresses, log *slog.Logger, getenv func(string) string) (*forwarder, error) {
	w := &forwarder{profile: p, read: func() map[string]string { return distroNames(m) }, own: own, version: m.Config().Version, log: log, guest: &forwardGuest{fast: &fastPath{log: log}}}
	w.readNames()
	rules, err := forwardRules(p, getenv)
	if err != nil {
		return nil, err
	}
	var allow func(network string, client, at netip.AddrPort) error
	if p.Ports.Users == profile.PortUsersOwner {
		allow = peeruser.Check
	}
	w.f = forward.New(forward.Config{
		Guest: w.guest, Allow: allow, Rules: rules, Auto: w.auto, DistroID: w.distroID, NextFree: p.Ports.NextFree,
		PortOwner: func(ctx context.Context, network string, at netip.AddrPort) forward.Owner {
			if who := profileWith(ctx, m, network, at); who != "" {
				return forward.Owner{Text: who, Yields: true}
			}
			return forward.Owner{Text: forward.Program(network, at)}
		},
		Logger: log,
	})
	return w, nil
}

func (w *forwarder) readNames() {
	names := w.read()
	w.names.Store(&names)
}

// auto says where a listener of a distro answers on the host.
func (w *forwarder) auto(l forward.Listener) []netip.Addr {
	name, ok := (*w.names.Load())[l.Distro]
	if !ok || !w.profile.Distro(name).AutoPorts {
		return nil
	}
	proto := profile.TCP
	if l.Network == forward.UDP {
		proto = profile.UDP
	}
	if !w.profile.Ports.Automatic(proto, l.Addr.Port()) {
		return nil
	}
	return profile.HostAddresses(w.profile.Ports.HostAddress)
}

// distroID returns the id of the distro of a name, in any case; "" where there
// is none.
func (w *forwarder) distroID(name string) string {
	for range 2 {
		for id, n := range *w.names.Load() {
			if strings.EqualFold(n, name) {
				return id
			}
		}
		w.readNames() // it may be new
	}
	return ""
}

func (*forwarder) Name() string { return "ports" }

// Run forwards until ctx is done or the guest tells no more what listens.
func (w *forwarder) Run(ctx context.Context, vm VM) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dialer := guest.NewWarm(vm)
	defer dialer.Close()
	c := guest.NewClient(dialer, w.version)
	w.guest.client = c
	w.guest.fast.use(vm.Connect)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.f.Run(ctx)
	}()
	err := w.watch(ctx, c)
	cancel()
	<-done
	return err
}

// maxListeners is how many listeners of a guest are looked at.
const maxListeners = 16 << 10

// watchPause is the time until a watch that broke off is tried again.
const watchPause = time.Second

// watch tells the forwarder what listens until ctx is done.
func (w *forwarder) watch(ctx context.Context, c *guest.Client) error {
	for {
		err := w.watchOnce(ctx, c)
		if ctx.Err() != nil {
			return nil
		}
		w.log.Warn("the guest does not tell what listens; ask again", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchPause):
		}
	}
}

func (w *forwarder) watchOnce(ctx context.Context, c *guest.Client) error {
	stream, err := c.WatchListeners(ctx, connect.NewRequest(&guestv1.WatchListenersRequest{}))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		w.readNames()
		w.own.set(stream.Msg().Networks)
		var all []forward.Listener
		listeners := stream.Msg().Listeners
		if len(listeners) > maxListeners {
			w.log.Warn("the guest tells of too many listeners; the rest is left out", "listeners", len(listeners), "limit", maxListeners)
			listeners = listeners[:maxListeners]
		}
		for _, l := range listeners {
			addr, err := netip.ParseAddrPort(l.Address)
			if err != nil || l.Network != forward.TCP && l.Network != forward.UDP {
				w.log.Warn("the guest tells of a listener that makes no sense", "network", l.Network, "address", l.Address)
				continue
			}
			all = append(all, forward.Listener{
				Network: l.Network, Addr: addr, V6Only: l.V6Only, Distro: l.Distro, Isolated: l.Isolated, PID: int(l.Pid), Process: l.Process,
			})
		}
		w.guest.fast.set(stream.Msg().Direct, all)
		w.f.SetListeners(all)
	}
	return stream.Err()
}

// Ports is what "lsub ports" shows.
func (w *forwarder) Ports() ([]*supervisorv1.Port, <-chan struct{}) {
	all, changed := w.f.Ports()
	ports := make([]*supervisorv1.Port, len(all))
	for i, p := range all {
		ports[i] = &supervisorv1.Port{
			Kind: p.Kind, Network: p.Network, Host: p.Host, Distro: p.Distro, Guest: p.Guest,
			Pid: int32(p.PID), Process: p.Process, State: p.State, Reason: p.Reason,
			Active: p.Active, Connections: p.Connections, Failed: p.Failed,
			BytesToGuest: p.ToGuest, BytesToHost: p.ToHost, OpenedAtNs: p.Opened.UnixNano(),
		}
	}
	return ports, changed
}

var _ Forwarder = (*forwarder)(nil)

// forwardGuest is a [forward.Guest].
type forwardGuest struct {
	client *guest.Client
	fast   *fastPath
}

func (g *forwardGuest) Connect(ctx context.Context, to forward.Target) (forward.Stream, error) {
	if c, opened := g.fast.connect(ctx, to); c != nil {
		return forward.Stream{Conn: c, Opened: opened}, nil
	}
	s, err := g.client.Connect(ctx, &guestv1.Connect{Distro: to.Distro, Network: to.Network, Address: to.Address})
	return forward.Stream(s), err
}

func (g *forwardGuest) Listen(ctx context.Context, at forward.Target, started func(), accepted func(uint64)) error {
	return g.client.Listen(ctx, &guestv1.Listen{Distro: at.Distro, Network: at.Network, Address: at.Address}, started, accepted)
}

func (g *forwardGuest) Accept(ctx context.Context, id uint64) (forward.Stream, error) {
	s, err := g.client.Accept(ctx, id)
	return forward.Stream(s), err
}
