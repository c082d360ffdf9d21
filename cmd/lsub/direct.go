package main

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
	"github.com/lsub/lsub/netstack/guesttcp"
	"github.com/lsub/lsub/virtionet"
)

// direct is the way of connections to the guest's loopback past the agent, where
// there is one. It is no more than that: what does not answer by it, the agent
// connects to.
type direct struct {
	log *slog.Logger

	mu    sync.Mutex
	link  *guesttcp.Link // nil where the driver has none
	open  bool           // the guest has its end of it
	ports map[netip.AddrPort]directPort
}

// directPort is what is known of a port.
type directPort struct {
	answers bool
	not     time.Time // until when there is no use in asking
}

// attach makes the host's end, by the network card of the VM.
func (d *direct) attach(card virtionet.Card) *guesttcp.Link {
	link := guesttcp.New(guesttcp.Config{Card: card, Logger: d.log})
	d.mu.Lock()
	d.link = link
	d.mu.Unlock()
	return link
}

// close ends what goes by the direct way, and it, until the next VM's.
func (d *direct) close() {
	d.mu.Lock()
	link := d.link
	d.link, d.open = nil, false
	d.mu.Unlock()
	if link != nil {
		link.Close()
	}
}

// set tells whether the guest has its end, and where anything listens in it.
func (d *direct) set(open bool, listeners []forward.Listener) {
	listens := map[uint16]bool{}
	for _, l := range listeners {
		if l.Network == forward.TCP && !l.Isolated {
			listens[l.Addr.Port()] = true
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = open
	maps.DeleteFunc(d.ports, func(at netip.AddrPort, _ directPort) bool { return !listens[at.Port()] })
}

const (
	// A port that has never answered may be led elsewhere, as a container engine's rules
	// do: nobody is to wait long for that.
	directFirst = 250 * time.Millisecond
	// One that has, is busy if it does not at once: a server takes only so many
	// connections before it gets round to them.
	directLater = 20 * time.Second
	// directPause is the time after which a port is asked again.
	directPause = 30 * time.Second
)

// connect connects to a target, as [forward.Guest] does, or returns nil where the
// agent has to.
func (d *direct) connect(ctx context.Context, to forward.Target) (net.Conn, func() ([]byte, error)) {
	at, err := netip.ParseAddrPort(to.Address)
	if !to.Shared || to.Network != forward.TCP || err != nil {
		return nil, nil
	}
	link, known := d.ask(at)
	if link == nil {
		return nil, nil
	}
	conn, err := link.Start(at)
	if err != nil {
		return nil, nil
	}
	if known { // it will: so nobody waits for it to say so
		return conn, func() ([]byte, error) { return nil, d.opened(context.Background(), conn, at, directLater) }
	}
	if d.opened(ctx, conn, at, directFirst) != nil {
		return nil, nil
	}
	return conn, func() ([]byte, error) { return nil, nil }
}

// opened waits for a port to answer, and learns of it.
func (d *direct) opened(ctx context.Context, conn *guesttcp.Conn, at netip.AddrPort, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := conn.Opened(ctx)
	switch {
	case err == nil && patience == directFirst:
		d.learn(at, directPort{answers: true})
	case errors.Is(err, context.DeadlineExceeded):
		d.log.Debug("a port of the guest does not answer by the direct way", "port", at, "waited", patience)
		d.learn(at, directPort{not: time.Now().Add(directPause)})
	}
	return err
}

// ask returns the way to a port, nil for none, and whether the port is known to answer.
func (d *direct) ask(at netip.AddrPort) (link *guesttcp.Link, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.ports[at]
	if d.link == nil || !d.open || time.Now().Before(p.not) {
		return nil, false
	}
	return d.link, p.answers
}

func (d *direct) learn(at netip.AddrPort, p directPort) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ports == nil {
		d.ports = map[netip.AddrPort]directPort{}
	}
	d.ports[at] = p
}
