package agent

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/lsub/lsub/guest/agent/network"
	"github.com/lsub/lsub/guest/agent/tcredirect"
)

// direct is the way of the host's connections to the loopback of the VM's
// network that leads past the agent. It is there from the first request for
// listeners on, for as long as the VM.
type direct struct {
	once sync.Once
	way  atomic.Pointer[tcredirect.Direct] // nil where there is none
}

// openDirect opens the way, in a VM that has a card. Without it the host's
// connections come by streams.
func (a *Agent) openDirect() {
	a.direct.once.Do(func() {
		if !a.cfg.Network.Address.IsValid() {
			return
		}
		start := time.Now()
		way, err := tcredirect.Attach(network.Card, a.log)
		if err != nil {
			a.log.Warn("no direct way for connections from the host", "err", err)
			return
		}
		a.direct.way.Store(way)
		a.log.Info("connections from the host have a direct way", "took", time.Since(start))
	})
}

// directClients is how many connections from the host the distro's processes have
// that came by the direct way. Nobody counts them as they come and go, so the kernel is asked.
func (d *distro) directClients() int {
	if d.a.direct.way.Load() == nil || d.spec.Isolated {
		return 0
	}
	all, err := d.a.clients(tcredirect.FirstPort)
	if err != nil {
		d.a.log.Warn("connections from the host are not known", "err", err)
		return 0
	}
	return all[d.spec.Id]
}
