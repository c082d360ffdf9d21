package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/lsub/lsub/netstack/forward"
)

// fastPath opens connections to the guest's loopback without the agent, where the
// driver and the guest can. Where it gets no answer, the caller asks the agent.
type fastPath struct {
	log *slog.Logger

	mu    sync.Mutex
	start func(at netip.AddrPort) (FastConn, error) // begins a connection
	open  bool                                      // the guest has its end of it
	ports map[netip.AddrPort]portState
}

// portState is what is known of a port.
type portState struct {
	answers bool
	not     time.Time // until when there is no use in asking
}

// use has connections begin with start, once the guest has its end.
func (d *fastPath) use(start func(at netip.AddrPort) (FastConn, error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.start, d.open = start, false
}

// set tells whether the guest has its end, and where anything listens in it.
func (d *fastPath) set(open bool, listeners []forward.Listener) {
	listens := map[uint16]bool{}
	for _, l := range listeners {
		if l.Network == forward.TCP && !l.Isolated {
			listens[l.Addr.Port()] = true
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = open
	maps.DeleteFunc(d.ports, func(at netip.AddrPort, _ portState) bool { return !listens[at.Port()] })
}

const (
	// A port that has never answered may be led elsewhere, as a container engine's rules
	// do: nobody is to wait long for that.
	firstTimeout = 250 * time.Millisecond
	// One that has, is busy if it does not at once: a server takes only so many
	// connections before it gets round to them.
	laterTimeout = 20 * time.Second
	// retryAfter is the time after which a port is asked again.
	retryAfter = 30 * time.Second
)

// connect connects to a target, as [forward.Guest] does, or returns nil where the
// agent has to.
func (d *fastPath) connect(ctx context.Context, to forward.Target) (net.Conn, func() ([]byte, error)) {
	at, err := netip.ParseAddrPort(to.Address)
	if !to.Shared || to.Network != forward.TCP || err != nil {
		return nil, nil
	}
	start, known := d.ask(at)
	if start == nil {
		return nil, nil
	}
	conn, err := start(at)
	if err != nil {
		return nil, nil
	}
	if known { // it will: so nobody waits for it to say so
		return conn, func() ([]byte, error) { return nil, d.opened(context.Background(), conn, at, laterTimeout) }
	}
	if d.opened(ctx, conn, at, firstTimeout) != nil {
		return nil, nil
	}
	return conn, func() ([]byte, error) { return nil, nil }
}

// opened waits for a port to answer, and learns of it.
func (d *fastPath) opened(ctx context.Context, conn FastConn, at netip.AddrPort, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := conn.Opened(ctx)
	switch {
	case err == nil && patience == firstTimeout:
		d.learn(at, portState{answers: true})
	case errors.Is(err, context.DeadlineExceeded):
		d.log.Debug("a port of the guest does not answer by the fast path", "port", at, "waited", patience)
		d.learn(at, portState{not: time.Now().Add(retryAfter)})
	}
	return err
}

// ask returns what begins a connection to a port, nil for nothing, and whether the port is
// known to answer.
func (d *fastPath) ask(at netip.AddrPort) (start func(netip.AddrPort) (FastConn, error), known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.ports[at]
	if !d.open || time.Now().Before(p.not) {
		return nil, false
	}
	return d.start, p.answers
}

func (d *fastPath) learn(at netip.AddrPort, p portState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ports == nil {
		d.ports = map[netip.AddrPort]portState{}
	}
	d.ports[at] = p
}
