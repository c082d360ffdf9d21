package vhostnet

import (
	"fmt"
	"runtime"

	"github.com/lsub/lsub/hypervisor/kvm/vhostuser"
	"github.com/lsub/lsub/virtionet"
)

const (
	// publishEvery is after how many frames the guest gets their memory back.
	publishEvery = 16
	// flushEvery is after how many frames the receiver hears that there are no more
	// for now, though there are: a guest that never stops must not keep it waiting.
	flushEvery = 256
)

// txQueue takes frames out of the guest's transmit queue. It runs in one goroutine,
// which hands them to the receiver itself.
type txQueue struct {
	vhostuser.Queue
	d *Device
	// unflushed is how many frames the receiver has had since the last call of Flush.
	unflushed int
}

// service is what a kick of the guest's runs: it has sent frames.
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

// drain takes what the guest had sent before its driver or the front-end went
// away. It looks once at no more than a ring of frames.
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

// batch takes up to limit frames. It returns how many it took. The lock is held.
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
