package guesttcp

import (
	"time"

	"github.com/lsub/lsub/connbuf"
)

// chunk is the data of a frame that the guest has not acknowledged, or of one that came too
// early.
type chunk struct {
	arr  *[]byte // of package connbuf; nil for few bytes
	data []byte
	cost int // memory use in bytes
}

const (
	fewBytes = 1 << 10
	// chunkCost is the overhead of a chunk, roughly.
	chunkCost = 64
)

// newChunk returns a chunk of n bytes.
func newChunk(n int) chunk {
	if n <= fewBytes {
		return chunk{nil, make([]byte, n), n + chunkCost}
	}
	arr := connbuf.GetArray(n)
	return chunk{arr, (*arr)[:n], len(*arr)}
}

func (c *chunk) free() {
	if c.arr != nil {
		connbuf.PutArray(c.arr)
	}
}

// The retransmission times.
const (
	resendAfter = 200 * time.Millisecond
	maxBackoff  = 6 // doublings
)

// start sends the SYN.
func (c *Conn) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != stateDialing { // the link was closed
		return
	}
	c.nxt = c.una + 1
	c.transmit(flagSYN, c.una, nil)
	c.expect()
}

// expect starts the retransmission timer for the bytes in flight.
func (c *Conn) expect() {
	c.resendAt = time.Now().Add(resendAfter << min(c.tries, maxBackoff))
	c.link.tick()
}

// emit sends as much as the guest has room for. The caller holds c.mu.
func (c *Conn) emit() {
	if c.state != stateOpen || c.blocked {
		return
	}
	for len(c.writeBuf) > 0 {
		n := c.sendable()
		if n == 0 {
			break
		}
		data := newChunk(n)
		copy(data.data, c.writeBuf)
		flags := byte(flagACK)
		if n == len(c.writeBuf) {
			flags |= flagPSH
		}
		if !c.transmit(flags, c.nxt, data.data) {
			data.free()
			return
		}
		c.unacked = append(c.unacked, data)
		c.held += data.cost
		c.nxt += uint32(n)
		if c.writeBuf = c.writeBuf[n:]; len(c.writeBuf) == 0 {
			c.writeCond.Signal()
		}
	}
	if c.shut && !c.finSent && len(c.writeBuf) == 0 && c.transmit(flagFIN|flagACK, c.nxt, nil) {
		c.finSent = true
		c.nxt++
	}
	if c.resendAt.IsZero() && (c.una != c.nxt || len(c.writeBuf) > 0) {
		c.expect()
	}
}

// sendable is how many waiting bytes may be sent in one segment now. A nearly closed window
// is not worth a frame while other frames are in flight.
func (c *Conn) sendable() int {
	window := int(int32(c.edge - c.nxt))
	if c.held > 0 {
		window = min(window, c.room-c.held)
	}
	n := min(len(c.writeBuf), c.mss, max(window, 0))
	if n < len(c.writeBuf) && n < c.mss && c.una != c.nxt && uint32(n) < c.best/2 {
		return 0
	}
	return n
}

// transmit sends a segment, with the current acknowledgement and window. If the guest has no
// room for it, it returns false and the connection waits for room. The caller holds c.mu.
func (c *Conn) transmit(flags byte, seq uint32, data []byte) bool {
	window := uint16(min(c.room, 1<<16-1))
	if flags&flagSYN == 0 {
		if edge := c.rcv + uint32(max(c.room-c.buf.Len(), 0)); after(edge, c.told) {
			c.told = edge
		}
		window = uint16(min((c.told-c.rcv)>>c.shift, 1<<16-1))
	}
	var ack uint32
	if flags&flagACK != 0 {
		ack = c.rcv
	}
	c.head.set(flags, seq, ack, window, len(data))
	c.parts[0], c.parts[1] = c.head.bytes(), data
	sent := c.link.cfg.Card.Send(c.parts[:]...)
	if !sent {
		if !c.listed {
			c.listed = true
			c.link.block(c)
		}
		// Room that came before c was in the list would not be reported.
		sent = c.link.cfg.Card.Send(c.parts[:]...)
		c.blocked = !sent
	}
	c.parts[1] = nil
	if sent && flags&flagACK != 0 {
		c.acked, c.segments, c.ackNow = c.rcv, 0, false
	}
	return sent
}

// unblock continues when the guest may have room.
func (c *Conn) unblock() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blocked, c.listed = false, false
	switch {
	case c.state == stateDialing:
		c.transmit(flagSYN, c.una, nil)
	case c.state == stateOpen:
		if c.ackNow {
			c.flushAck()
		}
		c.emit()
	case c.owesReset:
		c.sendReset(!c.answered)
	}
}

// flush answers received segments. It acknowledges every second one at once; a single one may
// wait for data to carry its acknowledgement.
func (c *Conn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due = false
	switch {
	case c.state != stateOpen:
	case c.ackNow || c.segments > 1 || c.rcv-c.acked > maxSegment/2:
		c.flushAck()
	case c.segments > 0 && !c.late:
		c.late = true
		c.link.acknowledgeLate(c)
	}
}

// flushAck acknowledges received segments, unless that was done. The caller holds c.mu.
func (c *Conn) flushAck() {
	if c.ackNow || c.segments > 0 {
		c.ackNow = true // until it is sent
		c.transmit(flagACK, c.nxt, nil)
	}
}

func (c *Conn) sendLate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.late = false
	if c.state == stateOpen {
		c.flushAck()
	}
}

// consumed tells the guest of free room, if that is much more than it knows of. The caller
// holds c.mu.
func (c *Conn) consumed() {
	room := c.rcv + uint32(c.room-c.buf.Len()) - c.told
	if c.state == stateOpen && !c.peerShut && int32(room) >= int32(c.room/4) {
		c.ackNow = true
		c.flushAck()
	}
}

// resend sends the first unacknowledged segment again. The caller holds c.mu.
func (c *Conn) resend() {
	switch {
	case c.state == stateDialing:
		c.transmit(flagSYN, c.una, nil)
	case len(c.unacked) > 0:
		c.transmit(flagACK|flagPSH, c.una, c.unacked[0].data)
	case c.finSent && c.una != c.nxt:
		c.transmit(flagFIN|flagACK, c.una, nil)
	default: // window probe: the guest has to answer it
		c.transmit(flagACK, c.una-1, nil)
	}
	c.expect()
}

// expire resends a segment whose acknowledgement is overdue. It returns whether to call it
// again.
func (c *Conn) expire(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == stateDead {
		return false
	}
	if c.closed && now.After(c.giveUp) {
		c.reset(errTimeout)
		return false
	}
	if c.resendAt.IsZero() {
		return c.closed
	}
	if now.After(c.resendAt) && !c.blocked {
		c.tries++
		c.recovered = c.nxt
		c.resend()
	}
	return true
}
