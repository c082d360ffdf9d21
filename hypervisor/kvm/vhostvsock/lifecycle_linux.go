package vhostvsock

import (
	"net"
	"syscall"
	"time"

	"github.com/lsub/lsub/connbuf"
)

// SetDeadline implements net.Conn.
func (s *stream) SetDeadline(t time.Time) error { return s.setDeadlines(t, &s.readDL, &s.writeDL) }

// SetReadDeadline implements net.Conn.
func (s *stream) SetReadDeadline(t time.Time) error { return s.setDeadlines(t, &s.readDL) }

// SetWriteDeadline implements net.Conn.
func (s *stream) SetWriteDeadline(t time.Time) error { return s.setDeadlines(t, &s.writeDL) }

func (s *stream) setDeadlines(t time.Time, dls ...*connbuf.Deadline) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return s.opError("set", net.ErrClosed)
	}
	for _, dl := range dls {
		dl.Set(t)
	}
	return nil
}

// CloseWrite tells the guest that no more bytes come. The guest still reads the bytes already
// written.
func (s *stream) CloseWrite() error { return s.shutdown(shutdownSend) }

// CloseRead tells the guest that its bytes are no longer wanted, so its writes fail. Unread
// bytes are dropped.
func (s *stream) CloseRead() error { return s.shutdown(shutdownRecv) }

func (s *stream) shutdown(how uint32) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return s.opError("shutdown", net.ErrClosed)
	}
	tell := s.state == stateOpen && s.localShut&how == 0
	s.localShut |= how
	if how&shutdownRecv != 0 {
		s.buf.Reset()
	}
	if tell {
		s.owes |= owesShutdown
	}
	s.readCond.Broadcast()
	s.writeCond.Broadcast()
	s.mu.Unlock()
	if tell {
		s.d.rx.submit(s)
	}
	return nil
}

// Close implements net.Conn. It does not wait for the guest: written bytes are in the guest's
// memory already. The stream's ports stay in use until the guest has confirmed, or
// Config.CloseTimeout has passed.
func (s *stream) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.readDL.Stop()
	s.writeDL.Stop()
	s.buf.Reset()
	tell := s.state == stateOpen
	if tell {
		s.state = stateClosing
		s.localShut = shutdownBoth
		s.owes |= owesShutdown
		s.owes &^= owesCredit | owesCreditRequest
		s.linger = time.AfterFunc(s.d.cfg.CloseTimeout, func() { s.abort(net.ErrClosed) })
	} else {
		s.d.release(s)
	}
	s.readCond.Broadcast()
	s.writeCond.Broadcast()
	s.mu.Unlock()
	if tell {
		s.d.rx.submit(s)
	}
	return nil
}

// abort ends a stream at once, with an RST if the guest knows the stream.
func (s *stream) abort(err error) {
	s.mu.Lock()
	rst := s.state != stateDialing || s.requested
	s.die(err, rst)
	s.mu.Unlock()
	if rst {
		s.d.rx.submit(s)
	}
}

// die ends the stream. Later calls return err once the received bytes are read. With rst, the
// stream stays in the device's table until the guest was told, so the table's limit bounds
// the unsent RSTs. The caller holds s.mu.
func (s *stream) die(err error, rst bool) {
	if s.state == stateDead {
		return
	}
	if s.state == stateDialing {
		s.refused = true
		close(s.opened)
	}
	s.state, s.err, s.owes = stateDead, err, 0
	for _, t := range []*time.Timer{s.linger, s.creditWait} {
		if t != nil {
			t.Stop()
		}
	}
	s.readCond.Broadcast()
	s.writeCond.Broadcast()
	if rst {
		s.owes = owesRst
	} else {
		s.d.forget(s)
	}
	if s.closed || s.buf.Len() == 0 {
		s.d.release(s)
	}
}

// restart adapts the stream to a guest whose driver has restarted and knows no stream. If the
// stream was still dialing, it dials again.
func (s *stream) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.state {
	case stateDialing:
		s.requested = false
		s.owes = owesRequest
	case stateDead:
		s.owes = 0
		s.d.forget(s)
	default:
		s.die(syscall.ECONNRESET, false)
	}
}
