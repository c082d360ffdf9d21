package vhostnet

import (
	"fmt"
	"sync"

	"github.com/lsub/lsub/hypervisor/kvm/vhostuser"
	"github.com/lsub/lsub/virtionet"
)

// maxChains bounds the buffers of a frame. A guest's smallest buffers hold an ordinary frame
// of 1,500 bytes.
const maxChains = 1024

// rxQueue puts frames into the guest's receive queue, in the goroutine of the sender.
type rxQueue struct {
	vhostuser.Queue
	d *Device
	// need is the length of the smallest frame that was refused since the last call of Room,
	// or 0. The lock guards it.
	need int
	// stands says that the guest has a driver, even if it is paused and has no ring for now:
	// its frames wait. The lock guards it.
	stands bool
	roomMu sync.Mutex // one call of Room at a time
}

// Send implements [virtionet.Card].
func (d *Device) Send(parts ...[]byte) bool {
	total := 0
	for _, p := range parts {
		total += len(p)
	}
	if total > maxFrame || len(parts) == 0 || len(parts[0]) < virtionet.HeaderLen {
		d.dropsRx.Add(1)
		return true
	}
	q := &d.rx
	q.Lock()
	defer q.Unlock()
	r := q.Ring()
	switch {
	case d.dev.Broken():
		return true
	case r == nil && q.stands:
		q.want(total)
		return false
	case r == nil:
		return true
	}
	q.stands = true
	sent, err := q.put(r, parts, total)
	for err == nil && !sent {
		// Each turn needs newly offered buffers, and the ring bounds their number.
		var more bool
		if more, err = r.EnableNotifyMore(); err == nil && !more {
			q.want(total)
			return false
		}
		if err == nil {
			sent, err = q.put(r, parts, total)
		}
	}
	if err != nil {
		d.dev.Fail(fmt.Errorf("rx queue: %w", err))
		return true
	}
	q.Flush()
	return true
}

// want records that there was no room for a frame. The caller holds the lock.
func (q *rxQueue) want(total int) {
	if q.need == 0 || total < q.need {
		q.need = total
	}
}

// gone wakes those who wait for room: the guest has no driver any more.
func (q *rxQueue) gone() {
	q.Lock()
	q.stands = false
	q.Unlock()
	q.service()
}

// put copies a frame of total bytes into as many of the guest's buffers as it needs, and
// tells the guest their number. If there are too few, it uses none and returns false.
func (q *rxQueue) put(r *vhostuser.Ring, parts [][]byte, total int) (bool, error) {
	var low, high *byte // bytes of num_buffers
	from, rest := parts[0], parts[1:]
	chains := uint16(0)
	for left := total; left > 0; chains++ {
		head, iov, size, err := q.next(r, chains)
		if err != nil || size == 0 {
			r.Untake(chains)
			r.Unput(chains)
			return false, err
		}
		if chains == 0 {
			if r.Features()&featMrgRxbuf == 0 && size < total {
				q.d.dropsRx.Add(1) // no buffer of this guest will ever hold it
				return true, nil
			}
			low, high = byteAt(iov, virtionet.NumBuffers), byteAt(iov, virtionet.NumBuffers+1)
		}
		n := min(left, size)
		left -= n
		r.Take()
		r.Put(head, n)
		for ; n > 0; iov = iov[1:] {
			for to := iov[0]; len(to) > 0 && n > 0; {
				for len(from) == 0 {
					from, rest = rest[0], rest[1:]
				}
				c := copy(to, from)
				to, from, n = to[c:], from[c:], n-c
			}
		}
	}
	*low, *high = byte(chains), byte(chains>>8)
	return true, nil
}

// next returns the guest's next buffer, at index chains of a frame's buffers. size is 0 if
// there is none.
func (q *rxQueue) next(r *vhostuser.Ring, chains uint16) (head uint16, iov [][]byte, size int, err error) {
	ok, err := r.Available()
	if err != nil || !ok {
		return 0, nil, 0, err
	}
	head, iov, size, err = r.Peek(true)
	if err == nil && (size == 0 || chains == 0 && size < virtionet.HeaderLen || chains == maxChains) {
		err = fmt.Errorf("%w: a buffer of %d bytes, after %d for the frame", vhostuser.ErrRing, size, chains)
	}
	return head, iov, size, err
}

// byteAt returns the byte at an offset of iov, which must be longer.
func byteAt(iov [][]byte, off int) *byte {
	for off >= len(iov[0]) {
		off -= len(iov[0])
		iov = iov[1:]
	}
	return &iov[0][off]
}

// service runs after the guest's kick: it has offered buffers.
func (q *rxQueue) service() (pause bool) {
	q.Lock()
	room := q.need > 0 && q.roomy()
	if room {
		q.need = 0
	}
	if r := q.Ring(); r != nil && q.need == 0 {
		r.DisableNotify()
	}
	q.Unlock()
	if room {
		q.roomMu.Lock()
		q.d.recv.Room()
		q.roomMu.Unlock()
	}
	return false
}

// roomy reports whether the refused frame fits now, or Send would drop it. If neither, it
// asks the guest for a kick. The caller holds the lock.
func (q *rxQueue) roomy() bool {
	r := q.Ring()
	if r == nil || q.d.dev.Broken() {
		return !q.stands || q.d.dev.Broken()
	}
	for {
		fits, err := q.fits(r)
		if err == nil && !fits {
			var more bool
			if more, err = r.EnableNotifyMore(); more {
				continue
			}
		}
		if err != nil {
			q.d.dev.Fail(fmt.Errorf("rx queue: %w", err))
		}
		return fits || err != nil
	}
}

// fits reports whether the available buffers hold q.need bytes.
func (q *rxQueue) fits(r *vhostuser.Ring) (bool, error) {
	chains := uint16(0)
	defer func() { r.Untake(chains) }()
	for left := q.need; left > 0; chains++ {
		_, _, size, err := q.next(r, chains)
		if err != nil || size == 0 {
			return false, err
		}
		if r.Features()&featMrgRxbuf == 0 {
			return true, nil // or Send will drop the frame
		}
		left -= size
		r.Take()
	}
	return true, nil
}
