package vhostvsock

import (
	"fmt"

	"github.com/lsub/lsub/hypervisor/kvm/vhostuser"
)

// txBatch is the number of the guest's packets after which we send the answers.
const txBatch = 32

// txQueue takes packets out of the guest's transmit queue. It runs in one goroutine, which
// passes the bytes to the streams. It never waits for their readers: credit keeps the bytes
// within the streams' buffers.
type txQueue struct {
	vhostuser.Queue
	d   *Device
	due []*stream // streams with packets to send after this batch; reused
}

// service runs after the guest's kick: it has sent packets. It returns true if it must wait
// for room for the answers.
func (q *txQueue) service() (pause bool) {
	q.Lock()
	defer q.Unlock()
	if q.Ring() != nil {
		q.Ring().DisableNotify()
	}
	for {
		n, err := q.batch(txBatch)
		if err == nil && n == 0 && q.Ring() != nil {
			if q.d.rx.congested() {
				return true
			}
			var more bool
			if more, err = q.Ring().EnableNotify(); more {
				q.Ring().DisableNotify()
				continue
			}
		}
		if err != nil {
			q.d.dev.Fail(fmt.Errorf("tx queue: %w", err))
		}
		if n == 0 || err != nil {
			return false
		}
	}
}

// drain takes the packets that the guest sent before its driver or the front-end went away:
// at most as many as the ring holds.
func (q *txQueue) drain() {
	q.Lock()
	defer q.Unlock()
	if q.Ring() == nil {
		return
	}
	for left := q.Ring().Size(); left > 0; {
		n, err := q.batch(min(left, txBatch))
		if n == 0 || err != nil {
			return
		}
		left -= n
	}
}

// batch takes up to limit packets, then lets the streams answer. It returns the number of
// packets. The caller holds the lock.
func (q *txQueue) batch(limit int) (n int, err error) {
	for n < limit && q.Ring() != nil && !q.d.dev.Broken() && !q.d.rx.congested() {
		var ok bool
		if ok, err = q.Ring().Available(); err != nil || !ok {
			break
		}
		if err = q.one(); err != nil {
			break
		}
		n++
	}
	if n > 0 {
		q.answer()
		q.Flush()
	}
	return n, err
}

// one takes one packet.
func (q *txQueue) one() error {
	head, iov, size, err := q.Ring().Peek(false)
	if err != nil {
		return err
	}
	if size < headerLen {
		return fmt.Errorf("%w: a packet of %d bytes", vhostuser.ErrRing, size)
	}
	var raw [headerLen]byte // a copy, because the guest can change its own
	iov = vhostuser.Gather(raw[:], iov)
	h := decodeHeader(&raw)
	if int64(h.Len) > int64(size-headerLen) || h.Len > maxPayload {
		return fmt.Errorf("%w: %s in %d bytes", vhostuser.ErrRing, &h, size)
	}
	if s := q.d.input(&h, iov); s != nil {
		q.due = append(q.due, s)
	}
	q.Ring().Take()
	q.Ring().Put(head, 0)
	return nil
}

// answer sends the packets and answers that the last batch has caused, for streams and for
// packets without one.
func (q *txQueue) answer() {
	rx := &q.d.rx
	if len(q.due) == 0 && rx.rejCount.Load() == 0 {
		return
	}
	rx.Lock()
	for i, s := range q.due {
		rx.push(s)
		q.due[i] = nil
	}
	q.due = q.due[:0]
	rx.pump()
	rx.Unlock()
}
