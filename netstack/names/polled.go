//go:build !linux

package names

import (
	"sync"
	"time"
)

const (
	// fresh is the maximum age of the system's answer before it is requested again, in the
	// background.
	fresh = 2 * time.Second
	// stale is its maximum age before a query waits for a new one.
	stale = time.Minute
)

// polled is a configuration that is slow to read.
type polled struct {
	ask func() (Resolv, error)

	mu    sync.Mutex
	value Resolv
	at    time.Time
	busy  bool
}

func (p *polled) get() Resolv {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch age := time.Since(p.at); {
	case age > stale:
		p.set(p.ask())
	case age > fresh && !p.busy:
		p.busy = true
		go func() { // ends by itself: ask is bounded
			value, err := p.ask()
			p.mu.Lock()
			defer p.mu.Unlock()
			p.busy = false
			p.set(value, err)
		}()
	}
	return p.value
}

func (p *polled) set(value Resolv, err error) {
	p.at = time.Now()
	if err == nil {
		p.value = value
	}
}

// thisHost asks the system for its servers; the hosts file is a file on every system.
func thisHost() System {
	return &host{
		polled: polled{ask: askSystem},
		hosts:  watched[Hosts]{path: hostsPath(), parse: ParseHosts},
	}
}

type host struct {
	polled
	hosts watched[Hosts]
}

func (h *host) Resolv() Resolv { return h.get() }
func (h *host) Hosts() Hosts   { return h.hosts.get() }
