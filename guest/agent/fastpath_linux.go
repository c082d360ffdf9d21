package agent

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/lsub/lsub/guest/agent/network"
	"github.com/lsub/lsub/guest/agent/tcredirect"
)

// fastPath carries the host's connections to the loopback of the VM's network
// without the agent. It opens with the first request for listeners, and stays
// open as long as the VM runs.
type fastPath struct {
	once     sync.Once
	redirect atomic.Pointer[tcredirect.Redirect] // nil where there is none
}

// openFastPath opens the fast path in a VM that has a card. Without it the host's
// connections come by streams.
func (a *Agent) openFastPath() {
	a.fastPath.once.Do(func() {
		if !a.cfg.Network.Address.IsValid() {
			return
		}
		start := time.Now()
		redirect, err := tcredirect.Attach(network.Card, a.log)
		if err != nil {
			a.log.Warn("no fast path for connections from the host", "err", err)
			return
		}
		a.fastPath.redirect.Store(redirect)
		a.log.Info("connections from the host have a fast path", "took", time.Since(start))
	})
}

// fastPathOpen tells whether the host's connections can take the fast path.
func (a *Agent) fastPathOpen() bool { return a.fastPath.redirect.Load() != nil }

// fastPathClients returns how many connections the distro's processes have from
// the host by the fast path. Nobody counts them as they come and go, so the kernel
// is asked.
func (d *distro) fastPathClients() int {
	if !d.a.fastPathOpen() || d.spec.Isolated {
		return 0
	}
	all, err := d.a.clients(tcredirect.FirstPort)
	if err != nil {
		d.a.log.Warn("connections from the host are not known", "err", err)
		return 0
	}
	return all[d.spec.Id]
}
