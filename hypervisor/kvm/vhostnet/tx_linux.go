package vhostnet

import (
	"fmt"
	"runtime"

	"github.com/lsub/lsub/hypervisor/kvm/vhostuser"
	"github.com/lsub/lsub/virtionet"
)

const (
	// publishEvery is the number of frames after which the guest gets their memory back.
	publishEvery = 16
	// flushEvery is the number of frames after which Flush is called although there are more:
	// a guest that never stops must not keep the receiver waiting.
	flushEvery = 256
)

// txQueue takes frames out of the guest's transmit queue. It runs in one goroutine, which
// calls the receiver.
type txQueue struct {
	vhostuser.Queue
	d *Device
	// unflushed is the number of frames passed to the receiver since the last Flush.
	unflushed int
}

// service runs after the guest's kick: it has sent frames.
func (q *txQueue) service() (pause bool) {
	q.Lock()
	defer q.Unlock()
	r := q.Ring()
	if r == nil {
		return false
	}
	r.DisableNotify()
	for taken := 0; !q.d.dev.Broken(); {
		if taken >= flushEvery { // others need the lock too, however much the guest sends
			taken = 0
			q.Unlock()
			runtime.Gosched()
			q.Lock()
			if r = q.Ring(); r == nil {
				break
			}
		}
		n, err := q.batch(r, publishEvery)
		taken += n
		if err == nil && n == 0 {
			q.idle()
			var more bool
			if more, err = r.EnableNotify(); err == nil && !more {
				break
			}
			r.DisableNotify()
		}
		if err != nil {
			q.d.dev.Fail(fmt.Errorf("tx queue: %w", err))
		}
	}
	q.idle()
	return false
}

// drain takes the frames that the guest sent before its driver or the front-end went away: at
// most as many as the ring holds.
func (q *txQueue) drain() {
	q.Lock()
	defer q.Unlock()
	r := q.Ring()
	if r == nil {
		return
	}
	for left := r.Size(); left > 0 && !q.d.dev.Broken(); {
		n, err := q.batch(r, min(left, publishEvery))
		if n == 0 || err != nil {
			break
		}
		left -= n
	}
	q.idle()
}

// batch takes up to limit frames. It returns their number. The caller holds the lock.
func (q *txQueue) batch(r *vhostuser.Ring, limit int) (n int, err error) {
	for n < limit {
		var ok bool
		if ok, err = r.Available(); err != nil || !ok {
			break
		}
		if err = q.one(r); err != nil {
			break
		}
		n++
	}
	if n > 0 {
		q.Flush()
	}
	if q.unflushed >= flushEvery {
		q.idle()
	}
	return n, err
}

// one takes one frame.
func (q *txQueue) one(r *vhostuser.Ring) error {
	head, iov, size, err := r.Peek(false)
	if err != nil {
		return err
	}
	if size < virtionet.HeaderLen {
		return fmt.Errorf("%w: a frame of %d bytes with its header", vhostuser.ErrRing, size)
	}
	if size > maxFrame {
		q.d.dropsTx.Add(1)
	} else {
		q.d.recv.Receive(iov)
		q.unflushed++
	}
	r.Take()
	r.Put(head, 0)
	return nil
}

// idle tells the receiver that there are no more frames for now.
func (q *txQueue) idle() {
	if q.unflushed > 0 {
		q.unflushed = 0
		q.d.recv.Flush()
	}
}
