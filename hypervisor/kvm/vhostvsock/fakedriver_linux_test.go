package vhostvsock

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/hypervisor/kvm/vhostuser/vhosttest"
)

// offer makes the entry's buffer of n bytes available: in one descriptor, or in two in an
// indirect table.
func (r *fakeRing) offer(id uint16, n int, write uint16) {
	at := r.bufs + int(id)*r.bufLen
	if r.g.indirect {
		table := r.tables + int(id)*64
		r.PutDesc(table, 0, vhosttest.Address(at), 20, vhosttest.Next|write, 1) // a header in two parts
		r.PutDesc(table, 1, vhosttest.Address(at+20), n-20, write, 0)
		r.PutDesc(r.Desc, int(id), vhosttest.Address(table), 2*vhosttest.DescLen, vhosttest.Indirect, 0)
	} else {
		r.PutDesc(r.Desc, int(id), vhosttest.Address(at), n, write, 0)
	}
	r.Offer(id)
}

func (g *fakeVM) refill() {
	for _, id := range g.rx.free {
		g.rx.offer(id, g.rx.bufLen, vhosttest.Write)
	}
	g.rx.free = nil
}

// run is the driver's interrupt handler.
func (g *fakeVM) run() {
	for !g.done.Load() {
		fds := []unix.PollFd{{Fd: int32(g.rx.Call), Events: unix.POLLIN}, {Fd: int32(g.tx.Call), Events: unix.POLLIN}, {Fd: int32(g.stop), Events: unix.POLLIN}}
		_, _ = unix.Poll(fds, -1)
		vhosttest.Drain(g.rx.Call)
		vhosttest.Drain(g.tx.Call)
		g.mu.Lock()
		g.reapTx()
		for !g.done.Load() && !g.hold.Load() {
			id, n, ok := g.rx.Reap()
			if !ok {
				break
			}
			at := g.rx.bufs + int(id)*g.rx.bufLen
			h := decodeHeader((*[headerLen]byte)(g.mem[at:]))
			if n != headerLen+int(h.Len) {
				g.t.Errorf("%d bytes used for %v", n, &h)
			}
			p := append([]byte(nil), g.mem[at+headerLen:at+n]...)
			g.rx.offer(id, g.rx.bufLen, vhosttest.Write)
			g.mu.Unlock()
			g.onPacket(h, p)
			g.mu.Lock()
		}
		g.mu.Unlock()
	}
}

func (g *fakeVM) reapTx() {
	for {
		id, _, ok := g.tx.Reap()
		if !ok {
			return
		}
		g.tx.free = append(g.tx.free, id)
		g.space.Broadcast()
	}
}

// send passes a packet to the device. It waits for a free entry.
func (g *fakeVM) send(h header, payload []byte) {
	h.Len = uint32(len(payload))
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		g.reapTx()
		if g.done.Load() {
			return
		}
		if len(g.tx.free) > 0 {
			break
		}
		g.mu.Unlock()
		time.Sleep(20 * time.Microsecond)
		g.mu.Lock()
	}
	id := g.tx.free[0]
	g.tx.free = g.tx.free[1:]
	at := g.tx.bufs + int(id)*g.tx.bufLen
	h.encode((*[headerLen]byte)(g.mem[at:]))
	copy(g.mem[at+headerLen:], payload)
	g.tx.offer(id, headerLen+len(payload), 0)
}
