package vhostvsock

import (
	"fmt"
	"sync/atomic"

	"github.com/lsub/lsub/hypervisor/kvm/vhostuser"
)

const (
	// quantum is how many bytes a stream may send in a turn. It is large enough to fill a
	// good part of the guest's ring.
	quantum = 64 << 10
	// publishEvery is the number of packets per publication: the guest processes them while
	// the next ones are copied.
	publishEvery = 16
	// maxRejects bounds the unsent RSTs for packets that belong to no stream.
	maxRejects = 256
)

// rxQueue sends packets into the guest's receive queue. Streams with packets to send take
// turns in a list. There is no sending goroutine: whoever adds a stream to the list calls
// pump, which sends for all streams.
type rxQueue struct {
	vhostuser.Queue
	d          *Device
	head, tail *stream

	// Answers to packets that belong to no stream; a ring.
	rejects  [maxRejects]header
	firstRej int
	rejCount atomic.Int32 // written under the lock, read without

	hdr [headerLen]byte
}

// submit sends the pending packets of s.
func (q *rxQueue) submit(s *stream) {
	q.Lock()
	q.push(s)
	q.pump()
	q.Unlock()
}

// push appends s to the list of streams with packets to send. The caller holds the lock.
func (q *rxQueue) push(s *stream) {
	if s.queued {
		return
	}
	s.queued = true
	if q.tail == nil {
		q.head = s
	} else {
		q.tail.next = s
	}
	q.tail = s
}

func (q *rxQueue) pop() *stream {
	s := q.head
	q.head = s.next
	if q.head == nil {
		q.tail = nil
	}
	s.next, s.queued = nil, false
	return s
}

// reject queues an RST that answers h. The tx queue keeps room for it.
func (q *rxQueue) reject(h *header) {
	q.Lock()
	defer q.Unlock()
	n := int(q.rejCount.Load())
	if n == maxRejects {
		return
	}
	q.rejects[(q.firstRej+n)%maxRejects] = header{
		SrcCID: hostCID, DstCID: h.SrcCID, SrcPort: h.DstPort, DstPort: h.SrcPort,
		Type: h.Type, Op: opRst,
	}
	q.rejCount.Store(int32(n + 1))
}

// congested reports whether there is no room for another answer.
func (q *rxQueue) congested() bool { return q.rejCount.Load() >= maxRejects }

// service runs after the guest's kick: it has offered buffers.
func (q *rxQueue) service() (pause bool) {
	q.Lock()
	q.pump()
	q.Unlock()
	return false
}

// pump sends while there are packets and guest buffers. If buffers are missing, it asks the
// guest for a kick. It sends nothing to a guest that cannot answer yet. The caller holds the
// lock.
func (q *rxQueue) pump() {
	if q.Ring() == nil || !q.d.tx.Up() || q.d.dev.Broken() {
		return
	}
	q.Ring().DisableNotify()
	for (q.head != nil || q.rejCount.Load() > 0) && !q.d.dev.Broken() {
		ok, err := q.Ring().Available()
		if err == nil && !ok {
			q.Flush()
			if ok, err = q.Ring().EnableNotify(); err == nil && !ok {
				return
			}
			q.Ring().DisableNotify()
		}
		if err == nil {
			err = q.turn()
		}
		if err != nil {
			q.d.dev.Fail(fmt.Errorf("rx queue: %w", err))
			return
		}
	}
	q.Flush()
}

// turn sends one answer, or lets the next stream send.
func (q *rxQueue) turn() error {
	if n := q.rejCount.Load(); n > 0 {
		if _, err := q.send(&q.rejects[q.firstRej], nil); err != nil {
			return err
		}
		q.firstRej = (q.firstRej + 1) % maxRejects
		q.rejCount.Store(n - 1)
		if n-1 == maxRejects/2 {
			q.d.tx.Resume() // it waits for room for its answers
		}
		return nil
	}
	s := q.pop()
	again, err := q.emit(s)
	if again {
		q.push(s)
	}
	return err
}

// emit sends packets of s until it has none, its turn is over, or no buffer is left. It
// returns whether s has more.
func (q *rxQueue) emit(s *stream) (again bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for left := quantum; ; {
		op := s.nextOp()
		if op == opInvalid || left <= 0 {
			return op != opInvalid, nil
		}
		if ok, err := q.Ring().Available(); !ok || err != nil {
			return true, err
		}
		var payload []byte
		if op == opRW {
			payload = s.writeBuf[:min(len(s.writeBuf), int(s.credit()), maxPayload, left)]
		}
		h := s.packet(op)
		n, err := q.send(&h, payload)
		if err != nil {
			return true, err
		}
		left -= n
		s.sent(op, n)
	}
}

// sent accounts for a packet that is in the guest's memory. The caller holds s.mu.
func (s *stream) sent(op uint16, n int) {
	switch op {
	case opRW:
		s.writeBuf = s.writeBuf[n:]
		s.txCnt += uint32(n)
		if len(s.writeBuf) == 0 {
			s.writeCond.Signal()
		}
	case opRst:
		s.d.forget(s)
	}
}

// send puts one packet into the next buffer, which must exist. It returns how many bytes of
// the payload fitted.
func (q *rxQueue) send(h *header, payload []byte) (int, error) {
	head, iov, size, err := q.Ring().Peek(true)
	if err != nil {
		return 0, err
	}
	if size < headerLen || size == headerLen && len(payload) > 0 {
		return 0, fmt.Errorf("%w: a buffer of %d bytes", vhostuser.ErrRing, size)
	}
	n := min(len(payload), size-headerLen)
	h.Len = uint32(n)
	h.encode(&q.hdr)
	vhostuser.Scatter(vhostuser.Scatter(iov, q.hdr[:]), payload[:n])
	q.Ring().Take()
	q.Ring().Put(head, headerLen+n)
	if q.Ring().Unpublished() >= publishEvery {
		q.Flush()
	}
	return n, nil
}

// drop discards all pending packets: the guest's driver has restarted.
func (q *rxQueue) drop() {
	q.Lock()
	defer q.Unlock()
	q.rejCount.Store(0)
	q.d.tx.Resume()
	for q.head != nil {
		q.pop()
	}
}
