package guesttcp

import (
	"slices"
	"syscall"
	"time"
)

// input processes a segment from the guest. It never waits. It returns whether the link must
// call flush after this batch of segments.
func (c *Conn) input(s *segment) (flush bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.state == stateDead: // it has ended in the meantime
		return false
	case s.flags&flagRST != 0:
		c.inputReset(s)
	case c.state == stateDialing:
		c.inputAnswer(s)
	case s.flags&flagSYN != 0: // it has not received our acknowledgement
		c.ackNow = true
	case s.flags&flagACK != 0:
		c.inputAck(s)
		c.inputData(s)
		c.finish()
	}
	if c.state == stateDead || c.due || !c.ackNow && c.segments == 0 {
		return false
	}
	c.due = true
	return true
}

func (c *Conn) inputReset(s *segment) {
	switch {
	case c.state == stateOpen && s.seq-c.rcv <= c.told-c.rcv:
		c.die(syscall.ECONNRESET)
	case c.state == stateDialing && s.flags&flagACK != 0 && s.ack == c.nxt:
		c.die(syscall.ECONNREFUSED)
	}
}

// inputAnswer takes the answer to our SYN.
func (c *Conn) inputAnswer(s *segment) {
	if s.flags&flagACK == 0 {
		return
	}
	if s.ack != c.nxt {
		// The guest remembers an earlier connection between the same ports. The RST makes it
		// forget that.
		c.transmit(flagRST, s.ack, nil)
		c.transmit(flagSYN, c.una, nil)
		return
	}
	if s.flags&flagSYN == 0 {
		return
	}
	c.una, c.rcv, c.acked = s.ack, s.seq+1, s.seq+1
	c.told = c.rcv + uint32(min(c.room, 1<<16-1)) // the window in the SYN
	c.edge, c.best = s.ack+uint32(s.window), uint32(s.window)
	c.recovered = s.ack
	if c.mss = maxSegment; s.scale >= 0 { // otherwise neither side scales
		c.scale, c.shift = s.scale, windowScale
	}
	if s.mss > 0 {
		c.mss = min(max(s.mss, minSegment), maxSegment)
	}
	c.state, c.answered, c.ackNow, c.resendAt, c.tries = stateOpen, true, true, time.Time{}, 0
	close(c.opened)
	c.emit()
}

// inputAck processes the guest's acknowledgement and window.
func (c *Conn) inputAck(s *segment) {
	switch {
	case after(s.ack, c.nxt): // it was never sent
		c.ackNow = true
		return
	case before(s.ack, c.una): // an old acknowledgement
		return
	}
	window := uint32(s.window) << c.scale
	edge := s.ack + window
	switch n := s.ack - c.una; {
	case n > 0:
		c.giveUp = time.Now().Add(lingerTime)
		c.release(n)
	case c.tries > 0 && after(edge, c.edge): // the window opens again: resend lost bytes now
		c.tries, c.resendAt = 0, time.Time{}
		if c.una != c.nxt {
			c.resend()
		}
	case s.n == 0 && s.flags&flagFIN == 0 && edge == c.edge && c.una != c.nxt:
		if c.duplicates++; c.duplicates == 3 {
			c.recovered = c.nxt
			c.resend()
		}
	}
	c.edge, c.best = edge, max(c.best, window)
	c.emit()
}

// release frees n bytes that the guest has acknowledged.
func (c *Conn) release(n uint32) {
	c.una += n
	for n > 0 && len(c.unacked) > 0 {
		first := &c.unacked[0]
		if uint32(len(first.data)) > n {
			first.data = first.data[n:]
			break
		}
		n -= uint32(len(first.data))
		c.held -= first.cost
		first.free()
		c.unacked[0] = chunk{}
		if c.unacked = c.unacked[1:]; len(c.unacked) == 0 {
			c.unacked = nil
		}
	}
	c.duplicates, c.tries, c.resendAt = 0, 0, time.Time{}
	if !before(c.una, c.recovered) { // otherwise it would seem ahead again after 2 GiB
		c.recovered = c.una
	}
	switch {
	case c.una == c.nxt:
	case before(c.una, c.recovered): // one was lost, so the next may be too
		c.resend()
	default:
		c.expect()
	}
}

// inputData takes the guest's data. Early data waits for the lost data before it.
func (c *Conn) inputData(s *segment) {
	fin := s.flags&flagFIN != 0
	if s.n == 0 && !fin {
		c.ackNow = c.ackNow || before(s.seq, c.rcv) // a keep-alive
		return
	}
	payload, n := s.payload, s.n
	if over := n - int(int32(c.told-s.seq)); over > 0 { // beyond the window
		n, fin = max(n-over, 0), false
	}
	switch {
	case c.peerShut: // our acknowledgement was lost
		c.ackNow = true
	case after(s.seq, c.rcv):
		c.keepEarly(s.seq, payload, n, fin)
		c.ackNow = true
		c.flushAck() // three of these make the guest resend
	case before(s.seq+uint32(n), c.rcv) || s.seq != c.rcv && s.seq+uint32(n) == c.rcv && !fin:
		c.ackNow = true // an old segment
	default:
		old := c.rcv - s.seq
		c.ackNow = c.ackNow || old > 0
		c.accept(drop(payload, int(old)), n-int(old), fin)
		c.acceptEarly()
	}
}

// accept takes the next n bytes, and the end after them. payload may hold more.
func (c *Conn) accept(payload [][]byte, n int, fin bool) {
	c.rcv += uint32(n)
	c.segments++
	if n > 0 && !c.closed {
		c.take(payload, n)
	}
	if fin {
		c.rcv++
		c.peerShut, c.ackNow = true, true
		c.readCond.Broadcast()
	}
}

// early is a segment that came before a lost one.
type early struct {
	seq  uint32
	fin  bool
	data chunk
}

// maxEarly bounds the segments that wait for a lost one: each new one is compared with all.
const maxEarly = 256

// keepEarly copies n bytes for later. The window bounds them. If a guest sends the same bytes
// again and again, this function does.
func (c *Conn) keepEarly(seq uint32, payload [][]byte, n int, fin bool) {
	i, kept := 0, 0
	for _, e := range c.early {
		if e.seq == seq && len(e.data.data) >= n {
			return
		}
		if before(e.seq, seq) {
			i++
		}
		kept += e.data.cost
	}
	if n == 0 || len(c.early) >= maxEarly {
		return // the guest sends it again
	}
	data := newChunk(n)
	if kept+data.cost > c.room {
		data.free()
		return
	}
	gather(data.data, payload)
	c.early = slices.Insert(c.early, i, early{seq, fin, data})
}

// acceptEarly takes the early segments that are next now.
func (c *Conn) acceptEarly() {
	for len(c.early) > 0 && !after(c.early[0].seq, c.rcv) {
		e := c.early[0]
		if c.early = c.early[1:]; len(c.early) == 0 {
			c.early = nil
		}
		if old := int(c.rcv - e.seq); old < len(e.data.data) && !c.peerShut {
			c.accept([][]byte{e.data.data[old:]}, len(e.data.data)-old, e.fin)
		}
		c.ackNow = true
		e.data.free()
	}
}

// take passes n bytes to the writer of a WriteTo, into the slice of a waiting Read, or into
// the buffer. payload may hold more.
func (c *Conn) take(payload [][]byte, n int) {
	if c.buf.Len() == 0 && c.sink != nil && c.sinkErr == nil {
		var failed error
		if payload, n, failed = c.writeToSink(payload, n); failed != nil {
			c.sinkErr = failed
		} else if n == 0 { // no goroutine needs to wake
			return
		}
	}
	if c.buf.Len() == 0 {
		for n > 0 && c.readBytes < len(c.readBuf) {
			k := copy(c.readBuf[c.readBytes:], payload[0][:min(n, len(payload[0]))])
			c.readBytes += k
			n -= k
			payload = drop(payload, k)
		}
	}
	c.buf.Append(payload, n)
	c.readCond.Signal()
}

// writeToSink writes without waiting, and returns the rest.
func (c *Conn) writeToSink(payload [][]byte, n int) ([][]byte, int, error) {
	whole := 0
	for i, p := range payload {
		if whole += len(p); whole >= n {
			payload[i] = p[:len(p)-(whole-n)]
			payload = payload[:i+1]
			break
		}
	}
	done, err := c.sink.WriteNow(payload)
	c.sinkN += int64(done)
	return drop(payload, done), n - done, err
}
