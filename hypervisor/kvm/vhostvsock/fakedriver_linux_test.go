package vhostvsock

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

func (r *fakeRing) load16(off int) uint16 {
	return uint16(le32(atomic.LoadUint32(word(r.g.mem, off))) >> (8 * (off & 2)))
}

// putDesc writes descriptor i of the table at an offset.
func (r *fakeRing) putDesc(table, i int, addr uint64, n int, flags, next uint16) {
	b, le := r.g.mem[table+i*descLen:], binary.LittleEndian
	le.PutUint64(b, addr)
	le.PutUint32(b[8:], uint32(n))
	le.PutUint16(b[12:], flags)
	le.PutUint16(b[14:], next)
}

// offer makes the entry's buffer of n bytes available, in one or, indirectly,
// in two descriptors, and kicks when the device wants it.
func (r *fakeRing) offer(id uint16, n int, write uint16) {
	at := r.bufs + int(id)*r.bufLen
	if r.g.indirect {
		table := r.tables + int(id)*64
		r.putDesc(table, 0, gpa(at), 20, descNext|write, 1) // a header in two parts
		r.putDesc(table, 1, gpa(at+20), n-20, write, 0)
		r.putDesc(r.desc, int(id), gpa(table), 2*descLen, descIndirect, 0)
	} else {
		r.putDesc(r.desc, int(id), gpa(at), n, write, 0)
	}
	binary.LittleEndian.PutUint16(r.g.mem[r.avail+4+2*(int(r.availIdx)%r.num):], id)
	r.availIdx++
	// avail is 2 modulo 4: its idx shares a word with the first entry, which
	// only the driver writes either.
	w := word(r.g.mem, r.avail+2)
	first := uint32(binary.LittleEndian.Uint16(r.g.mem[r.avail+4:]))
	atomic.StoreUint32(w, le32(uint32(r.availIdx)|first<<16))
	if r.g.eventIdx {
		if event := r.load16(r.used + 4 + 8*r.num); r.availIdx-event-1 < 1 {
			signal(r.kick)
		}
	} else if r.load16(r.used)&usedNoNotify == 0 {
		signal(r.kick)
	}
}

// reap returns the next used entry.
func (r *fakeRing) reap() (id uint16, n int, ok bool) {
	if r.load16(r.used+2) == r.seen {
		if !r.g.eventIdx {
			return 0, 0, false
		}
		// used_event: an interrupt for the next one, then look again.
		binary.LittleEndian.PutUint16(r.g.mem[r.avail+4+2*r.num:], r.seen)
		var fence atomic.Uint32
		fence.Store(1)
		if r.load16(r.used+2) == r.seen {
			return 0, 0, false
		}
	}
	e := r.g.mem[r.used+4+8*(int(r.seen)%r.num):]
	r.seen++
	return uint16(binary.LittleEndian.Uint32(e)), int(binary.LittleEndian.Uint32(e[4:])), true
}

func (g *fakeVM) refill() {
	for _, id := range g.rx.free {
		g.rx.offer(id, g.rx.bufLen, descWrite)
	}
	g.rx.free = nil
}

// run is the driver's interrupt handler.
func (g *fakeVM) run() {
	for !g.done.Load() {
		fds := []unix.PollFd{{Fd: int32(g.rx.call), Events: unix.POLLIN}, {Fd: int32(g.tx.call), Events: unix.POLLIN}, {Fd: int32(g.stop), Events: unix.POLLIN}}
		_, _ = unix.Poll(fds, -1)
		var b [8]byte
		_, _ = unix.Read(g.rx.call, b[:])
		_, _ = unix.Read(g.tx.call, b[:])
		g.mu.Lock()
		g.reapTx()
		for !g.done.Load() && !g.hold.Load() {
			id, n, ok := g.rx.reap()
			if !ok {
				break
			}
			at := g.rx.bufs + int(id)*g.rx.bufLen
			h := decodeHeader((*[headerLen]byte)(g.mem[at:]))
			if n != headerLen+int(h.Len) {
				g.t.Errorf("%d bytes used for %v", n, &h)
			}
			p := append([]byte(nil), g.mem[at+headerLen:at+n]...)
			g.rx.offer(id, g.rx.bufLen, descWrite)
			g.mu.Unlock()
			g.onPacket(h, p)
			g.mu.Lock()
		}
		g.mu.Unlock()
	}
}

func (g *fakeVM) reapTx() {
	for {
		id, _, ok := g.tx.reap()
		if !ok {
			return
		}
		g.tx.free = append(g.tx.free, id)
		g.space.Broadcast()
	}
}

// send gives the device a packet. It waits for a free entry.
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
