package vhostvsock

import (
	"net"
	"syscall"
)

// input acts on a packet from the guest. It never waits. It returns the stream that now has
// something to send, or nil. body holds at least h.Len bytes.
func (d *Device) input(h *header, body [][]byte) *stream {
	if h.SrcCID != d.cid || h.DstCID != hostCID {
		return nil // as Linux does: not for us, so no answer
	}
	if h.Type != typeStream {
		d.reject(h)
		return nil
	}
	key := flowKey{local: h.DstPort, peer: h.SrcPort}
	s := d.lookup(key)
	if s != nil && h.Op == opRequest && s.superseded() {
		s = nil
	}
	switch {
	case s != nil:
		return s.input(h, body)
	case h.Op == opRequest:
		return d.accept(key, h)
	}
	d.reject(h)
	return nil
}

// reject queues an RST as the answer to a packet that belongs to no stream. An RST gets no
// answer.
func (d *Device) reject(h *header) {
	if h.Op != opRst {
		d.rx.reject(h)
	}
}

// superseded reports whether the guest may open a new stream between the same ports. It may
// if the old one was closed here: the guest has forgotten that one.
func (s *stream) superseded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != stateClosing {
		return false
	}
	s.die(net.ErrClosed, false)
	return true
}

func (s *stream) input(h *header, body [][]byte) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == stateDead {
		return nil // an RST is on its way
	}
	s.peerAlloc, s.peerFwdCnt = h.BufAlloc, h.FwdCnt
	ok := true
	switch h.Op {
	case opRst:
		s.inputRst()
		return nil
	case opResponse:
		if ok = s.state == stateDialing && s.requested; ok {
			s.state = stateOpen
			close(s.opened)
		}
	case opRW:
		ok = s.inputData(int(h.Len), body)
	case opShutdown:
		if ok = s.state != stateDialing; ok {
			s.inputShutdown(h.Flags)
		}
	case opCreditUpdate:
		ok = s.state != stateDialing
	case opCreditRequest:
		if ok = s.state != stateDialing; ok {
			s.owes |= owesCredit
		}
	default:
		ok = false
	}
	if !ok {
		s.d.log.Warn("vsock: the guest broke the protocol, stream reset", "packet", h)
		s.die(syscall.ECONNRESET, true)
	}
	if s.nextOp() == opInvalid {
		return nil
	}
	return s
}

func (s *stream) inputRst() {
	err := error(syscall.ECONNRESET)
	if s.state == stateClosing {
		err = net.ErrClosed // the confirmation
	}
	s.die(err, false)
}

// inputShutdown records the directions that the guest has ended. After both, the stream waits
// for the confirmation by RST; received bytes stay readable here.
func (s *stream) inputShutdown(flags uint32) {
	s.peerShut |= flags & shutdownBoth
	s.readCond.Broadcast()
	s.writeCond.Broadcast()
	if s.peerShut == shutdownBoth {
		s.die(syscall.EPIPE, true)
	}
}

// inputData passes n bytes to the writer of a WriteTo, into the slice of a waiting Read, or
// into the buffer. It returns false if the guest may not send them. body may hold more than n
// bytes.
func (s *stream) inputData(n int, body [][]byte) bool {
	if s.state == stateDialing || s.peerShut&shutdownSend != 0 || n > int(s.bufAlloc)-s.buf.Len() {
		return false
	}
	if s.state == stateClosing || s.localShut&shutdownRecv != 0 {
		s.fwdCnt += uint32(n) // sent before the guest knew that nobody reads
		return true
	}
	if s.buf.Len() == 0 && s.sink != nil && s.sinkErr == nil {
		body, n = s.writeToSink(body, n)
		if n == 0 && s.sinkErr == nil { // no goroutine needs to wake
			if s.creditDue() {
				s.owes |= owesCredit
			}
			return true
		}
	}
	if s.buf.Len() == 0 {
		for n > 0 && s.readBytes < len(s.readBuf) {
			c := copy(s.readBuf[s.readBytes:], body[0][:min(n, len(body[0]))])
			s.readBytes += c
			s.fwdCnt += uint32(c)
			n -= c
			if body[0] = body[0][c:]; len(body[0]) == 0 {
				body = body[1:]
			}
		}
	}
	s.buf.Append(body, n)
	s.readCond.Signal()
	if s.creditDue() {
		s.owes |= owesCredit
	}
	return true
}

// writeToSink writes without waiting, and returns the rest.
func (s *stream) writeToSink(body [][]byte, n int) ([][]byte, int) {
	whole := 0
	for i, p := range body {
		if whole += len(p); whole >= n {
			body[i] = p[:len(p)-(whole-n)]
			body = body[:i+1]
			break
		}
	}
	done, err := s.sink.WriteNow(body)
	s.sinkN += int64(done)
	s.sinkErr = err
	s.fwdCnt += uint32(done)
	left := n - done
	for done > 0 {
		c := min(done, len(body[0]))
		done -= c
		if body[0] = body[0][c:]; len(body[0]) == 0 {
			body = body[1:]
		}
	}
	return body, left
}

// nextOp returns the packet that the stream should send now, or opInvalid. The caller holds
// s.mu.
func (s *stream) nextOp() uint16 {
	owes := func(f sendFlags) bool { return s.owes&f != 0 }
	switch {
	case owes(owesRst):
		return opRst
	case owes(owesRequest):
		return opRequest
	case s.state != stateOpen && s.state != stateClosing:
		return opInvalid
	case owes(owesResponse):
		return opResponse
	case len(s.writeBuf) > 0 && s.credit() > 0 && s.writeEnd() == nil:
		return opRW
	case owes(owesShutdown):
		return opShutdown
	case owes(owesCredit):
		return opCreditUpdate
	case owes(owesCreditRequest):
		return opCreditRequest
	}
	return opInvalid
}

// packet returns the header of the packet op, with the current credit, and counts it as sent.
func (s *stream) packet(op uint16) header {
	h := header{
		SrcCID: hostCID, DstCID: s.d.cid, SrcPort: s.key.local, DstPort: s.key.peer,
		Type: typeStream, Op: op, BufAlloc: s.bufAlloc, FwdCnt: s.fwdCnt,
	}
	s.fwdSent = s.fwdCnt
	s.owes &^= owesCredit
	switch op {
	case opRst:
		s.owes = 0
	case opRequest:
		s.owes &^= owesRequest
		s.requested = true
	case opResponse:
		s.owes &^= owesResponse
	case opShutdown:
		s.owes &^= owesShutdown
		h.Flags = s.localShut
	case opCreditRequest:
		s.owes &^= owesCreditRequest
	}
	return h
}
