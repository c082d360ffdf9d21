package agent

import (
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
)

const (
	// collectTimeout is how long a connection waits for the host to collect it.
	collectTimeout = 10 * time.Second
	// maxPendingAccepts is how many may wait for that.
	maxPendingAccepts = 1024
)

// pendingAccepts are connections in the VM that wait for the host to collect them.
type pendingAccepts struct {
	mu      sync.Mutex
	next    uint64
	waiting map[uint64]net.Conn
}

// put adds a connection, and returns its number. One that the host does not collect
// in time is closed.
func (p *pendingAccepts) put(c net.Conn) (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) >= maxPendingAccepts {
		return 0, fmt.Errorf("%d connections wait for the host", len(p.waiting))
	}
	if p.waiting == nil {
		p.waiting = map[uint64]net.Conn{}
	}
	p.next++
	id := p.next
	p.waiting[id] = c
	time.AfterFunc(collectTimeout, func() {
		if c, err := p.take(id); err == nil {
			c.Close()
		}
	})
	return id, nil
}

// take removes the connection of that number. The caller closes it.
func (p *pendingAccepts) take(id uint64) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.waiting[id]
	if !ok {
		return nil, guest.Errorf(guestv1.ErrorCode_ERROR_CODE_NOT_FOUND, "", "no connection %d waits", id)
	}
	delete(p.waiting, id)
	return c, nil
}
