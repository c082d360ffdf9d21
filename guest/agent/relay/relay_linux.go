// Package relay moves bytes between two sockets of the VM: a stream to the host
// and a connection in a distro.
//
// A relay passes on a half-close as a half-close. It passes on a reset as a close without
// a half-close before, and takes such a close for a reset: vsock has no reset that a
// program could send.
//
//	l, err := relay.OpenLoop(cpu, log)
//	l.Relay(stream, conn, answer, head, done) // until both ways have ended
//	relay.Packets(stream, udp, nil)
//
// An open connection on which nothing moves takes some hundred bytes of memory and no
// buffer. The package is Linux only.
package relay

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// end is one end of a relay, or another descriptor that a loop watches.
type end struct {
	fd   int
	age  int32  // tells it from an earlier one with the same number
	link *link  // nil for another descriptor
	on   func() // of another descriptor: there is an event

	readable, writable bool // as far as is known
	ended              bool // nothing more comes from it, or is wanted
	shut               bool // nothing more is written to it

	due    []byte // is to be written to it before anything else
	buffer []byte // of the loop's, that due is in; nil for none
}

// link is a relay.
type link struct {
	l            *Loop
	stream, conn end // to the host; to what is in a distro
	done         func()
	failed       bool // it ends in a way that both sides see as a failure
	queued       bool
	over         bool
}

// drainTime is how long an end that takes no more may still have something to
// say.
const drainTime = 5 * time.Second

// Relay moves bytes both ways until both have ended, closes both descriptors, and calls
// done once; done must not block, and may be nil. stream leads to the host: answer is
// written to it first, and head, which was already read from it, to conn. Both are
// non-blocking sockets that the loop owns from now on.
func (l *Loop) Relay(stream, conn int, answer, head []byte, done func()) {
	lk := newLink(l, stream, conn, answer, head, done)
	if l.do(lk.start) {
		return
	}
	unix.Close(conn)
	unix.Close(stream)
	if done != nil {
		done()
	}
}

func newLink(l *Loop, stream, conn int, answer, head []byte, done func()) *link {
	lk := &link{l: l, done: done}
	lk.stream = end{fd: stream, link: lk, writable: true, due: answer}
	lk.conn = end{fd: conn, link: lk, writable: true, due: head}
	return lk
}

// start begins, on the loop's thread.
func (lk *link) start() {
	if errors.Join(lk.l.watch(&lk.stream), lk.l.watch(&lk.conn)) != nil {
		lk.fail()
		return
	}
	lk.l.enqueue(lk) // for what is due; what is there to read is an event
}

// serve moves what can be moved now. It returns true where its turn was too
// short for that.
func (lk *link) serve() (more bool) {
	there := lk.move(&lk.conn, &lk.stream)
	back := lk.move(&lk.stream, &lk.conn)
	if lk.stream.ended && lk.conn.ended {
		lk.end()
	}
	return (there || back) && !lk.over
}

// move moves bytes one way until no more come or are taken, and passes on their
// end. What fails fails both ways: where src is broken at once; where dst takes no
// more, once what it has said already is through, which is followed by its end.
func (lk *link) move(dst, src *end) (more bool) {
	if len(dst.due) > 0 && !lk.over {
		if dst.due = lk.write(dst, src, dst.due); len(dst.due) > 0 {
			return false
		}
		lk.l.putBuffer(dst)
	}
	for left := turn; src.readable && !src.ended && !lk.over; {
		if left <= 0 {
			return true
		}
		n, err := ignoringEINTR(func() (int, error) { return unix.Read(src.fd, lk.l.buf) })
		switch {
		case err == unix.EAGAIN:
			src.readable = false
		case err != nil:
			lk.fail()
		case n == 0:
			lk.passEnd(dst, src)
		default:
			left -= n
			if rest := lk.write(dst, src, lk.l.buf[:n]); len(rest) > 0 {
				lk.l.lendBuffer(dst)
				dst.due = rest
				return false
			}
		}
	}
	return false
}

// write writes p to dst, and returns what it does not take yet. src is where p came
// from.
func (lk *link) write(dst, src *end, p []byte) (rest []byte) {
	for dst.writable && len(p) > 0 {
		n, err := ignoringEINTR(func() (int, error) { return unix.Write(dst.fd, p) })
		switch {
		case err == unix.EAGAIN:
			dst.writable = false
		case err != nil:
			lk.failed, src.ended = true, true
			lk.l.after(drainTime, lk.fail)
			return nil
		default:
			p = p[n:]
		}
	}
	return p
}

// passEnd tells dst that src says no more.
func (lk *link) passEnd(dst, src *end) {
	src.ended = true
	switch {
	case src == &lk.stream && lk.wasReset():
		lk.fail()
	case lk.failed: // a half-close would be taken for a good end
	default:
		dst.shut = true
		if unix.Shutdown(dst.fd, unix.SHUT_WR) != nil {
			lk.fail()
		}
	}
}

// wasReset tells, after the end of what comes from the host, whether it has
// closed the stream altogether though we have not said that we are done.
func (lk *link) wasReset() bool {
	if lk.stream.shut {
		return false
	}
	// Nothing is sent: the kernel only looks whether anything could be.
	err := unix.Sendto(lk.stream.fd, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, nil)
	return err == unix.EPIPE || err == unix.ECONNRESET
}

// fail ends the relay at once.
func (lk *link) fail() {
	lk.failed = true
	lk.end()
}

// end closes both ends.
func (lk *link) end() {
	if lk.over {
		return
	}
	lk.over = true
	if lk.failed { // the peer of a TCP connection sees a reset
		unix.SetsockoptLinger(lk.conn.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	for _, e := range []*end{&lk.conn, &lk.stream} {
		lk.l.putBuffer(e)
		lk.l.close(e)
	}
	if lk.done != nil {
		lk.done()
	}
}

func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}
