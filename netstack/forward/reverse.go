package forward

import (
	"context"
	"net"
	"time"
)

// maxPause is the longest time between two attempts to listen in the guest.
const maxPause = 30 * time.Second

// reverse listens in the guest for a rule, and connects to the host, until ctx is done.
func (f *Forwarder) reverse(ctx context.Context, r Rule) {
	p := f.addReverse(r)
	pause := time.Second
	for {
		to, ok := f.resolve(r.Guest)
		if !ok { // it may be installed at any time
			f.setState(p, StateWaiting, "no distro "+to.Distro+" is installed")
			select {
			case <-ctx.Done():
				return
			case <-time.After(retryEvery):
			}
			continue
		}
		start := time.Now()
		err := f.cfg.Guest.Listen(ctx, to,
			func() { f.setState(p, StateOpen, "") },
			func(id uint64) { f.arrived(ctx, p, r, id) })
		if ctx.Err() != nil {
			return
		}
		f.log.Warn("the guest does not listen for the host", "guest", r.Guest.Address, "err", err)
		f.setState(p, StateFailed, err.Error())
		if time.Since(start) > maxPause {
			pause = time.Second
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
			pause = min(2*pause, maxPause)
		}
	}
}

// addReverse adds a rule's port to the list of ports.
func (f *Forwarder) addReverse(r Rule) *port {
	key := portKey{kind: KindReverse, network: r.Network, path: r.Guest.Distro + " " + r.Guest.Address}
	where := r.Dial
	if r.Network == Unix {
		where = r.Path
	}
	p := &port{f: f, state: StateWaiting, since: time.Now(), plan: plan{key: key, path: where, v4: r.Guest, guest: r.Guest.Address}}
	p.open = []opened{{where, noCloser{}}}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ports[key] = p
	f.tellChange()
	return p
}

// noCloser stands for a listener in the guest.
type noCloser struct{}

func (noCloser) Close() error { return nil }

func (f *Forwarder) setState(p *port, state, reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.state != state || p.reason != reason {
		p.state, p.reason = state, reason
		f.tellChange()
	}
}

// arrived connects a connection from the guest to the host.
func (f *Forwarder) arrived(ctx context.Context, p *port, r Rule, id uint64) {
	st := &p.stats
	st.connections.Add(1)
	// The guest may begin many connections and read none of them, and each holds a buffer.
	if !f.back.TryAcquire() {
		st.failed.Add(1)
		return // the guest gives up after a while
	}
	if !f.conns.TryAcquire() {
		f.back.Release()
		st.failed.Add(1)
		return
	}
	st.active.Add(1)
	f.wg.Go(func() {
		defer f.back.Release()
		defer f.conns.Release()
		defer st.active.Add(-1)
		dialing, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		stream, err := f.cfg.Guest.Accept(dialing, id)
		if err != nil {
			st.failed.Add(1)
			return
		}
		network, address := TCP, r.Dial
		if r.Network == Unix {
			network, address = Unix, r.Path
		}
		c, err := new(net.Dialer).DialContext(dialing, network, address)
		if err != nil {
			st.failed.Add(1)
			f.log.Debug("a connection of the guest finds nobody on the host", "address", address, "err", err)
			stream.Opened()
			stream.Conn.Close() // a reset for the guest
			return
		}
		rl := &relay{conn: c, stream: stream.Conn, stats: st}
		stop := context.AfterFunc(ctx, rl.cut)
		defer stop()
		if rl.run(stream.Opened) != nil {
			st.failed.Add(1)
		}
	})
}
