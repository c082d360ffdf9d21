package guesttcp

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/lsub/lsub/connbuf"
)

// state is the state of a connection.
type state int

const (
	stateDialing state = iota
	stateOpen          // until both directions have ended and Close was called
	stateDead          // forgotten by the link; received bytes can still be read
)

// Conn is a connection to a server on the guest's loopback. It implements [net.Conn].
type Conn struct {
	link *Link
	flow flow

	readMu, writeMu sync.Mutex // one Read, one Write at a time

	mu                  sync.Mutex // guards what follows
	readCond, writeCond sync.Cond
	readDL, writeDL     connbuf.Deadline
	state               state
	err                 error         // why it is dead
	opened              chan struct{} // closed when the guest has answered, or never will
	answered            bool          // the guest has accepted
	closed              bool          // Close was called
	room                int           // buffer limit in each direction

	// To the guest.
	una, nxt, edge uint32 // next byte each: acknowledged, to send, end of the guest's window
	best           uint32 // the largest window seen
	scale, shift   int    // of the guest's windows, and of ours
	mss            int
	unacked        []chunk // from una on
	writeBuf       []byte  // the rest of a waiting Write
	shut           bool    // the direction ends: a FIN is due
	finSent        bool
	held           int       // bytes of memory in unacked
	blocked        bool      // waits for room in the guest
	listed         bool      // in the link's list of blocked connections
	owesReset      bool      // it is dead, but the guest was not told
	resendAt       time.Time // zero: nothing is in flight
	tries          int
	duplicates     int    // duplicate acknowledgements in a row
	recovered      uint32 // the lost bytes are before it
	giveUp         time.Time

	// To the host.
	rcv       uint32 // the next byte
	told      uint32 // end of the window that the guest knows
	acked     uint32 // rcv as the guest knows it
	segments  int    // since then
	peerShut  bool
	ackNow    bool
	due, late bool    // in the link's lists
	early     []early // sorted by sequence number; the next one is never among them
	buf       connbuf.Buffer
	readBuf   []byte // of a waiting Read
	readBytes int    // put into readBuf
	sink      nowWriter
	sinkN     int64 // bytes that sink has taken
	sinkErr   error // error of sink

	head  head
	frame [headMax]byte
	parts [2][]byte
}

func newConn(l *Link, f flow, iss uint32, room int) *Conn {
	c := &Conn{link: l, flow: f, una: iss, nxt: iss, room: room, opened: make(chan struct{})}
	c.readCond.L, c.writeCond.L = &c.mu, &c.mu
	c.readDL.Cond, c.writeDL.Cond = &c.readCond, &c.writeCond
	c.head.buf = &c.frame
	c.head.init(f)
	return c
}

// dialed returns why the guest refused, or nil.
func (c *Conn) dialed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.answered {
		return c.err
	}
	return nil
}

// Read implements [net.Conn]. It returns all bytes that came before the connection's end,
// then the end or the error.
func (c *Conn) Read(p []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	n, err := c.read(p)
	return n, c.opError("read", err)
}

func (c *Conn) read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch err := c.readEnd(); {
		case c.closed || c.readDL.Passed():
			return 0, err
		case len(p) == 0:
			return 0, nil
		case c.buf.Len() > 0:
			n := c.buf.Take(p)
			c.consumed()
			return n, nil
		case err != nil:
			return 0, err
		}
		// From here on, the card's goroutine copies straight into p.
		c.readBuf, c.readBytes = p, 0
		c.readCond.Wait()
		n := c.readBytes
		c.readBuf, c.readBytes = nil, 0
		if n > 0 {
			return n, nil
		}
	}
}

// readEnd returns why nothing more can be read, or nil. The caller holds c.mu.
func (c *Conn) readEnd() error {
	switch {
	case c.closed:
		return net.ErrClosed
	case c.readDL.Passed():
		return os.ErrDeadlineExceeded
	case c.sinkErr != nil:
		return c.sinkErr
	case c.peerShut:
		return io.EOF
	case c.state == stateDead:
		return c.err
	}
	return nil
}

// nowWriter is a writer that WriteTo can write to without waiting: the card's goroutine
// writes to it straight from the guest's memory. WriteNow may write only some of the bytes,
// or none.
type nowWriter interface{ WriteNow(p [][]byte) (int, error) }

// WriteTo implements [io.WriterTo]. It saves the buffer and the copy of io.Copy.
func (c *Conn) WriteTo(w io.Writer) (total int64, err error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if d, ok := w.(nowWriter); ok {
		c.sink, c.sinkN, c.sinkErr = d, 0, nil
		defer func() {
			total += c.sinkN
			c.sink = nil
		}()
	}
	for {
		if c.buf.Len() == 0 || c.closed || c.readDL.Passed() {
			switch err := c.readEnd(); {
			case err == io.EOF:
				return total, nil
			case err != nil:
				return total, c.opError("read", err)
			}
			c.readCond.Wait()
			continue
		}
		p := c.buf.Lend()
		c.mu.Unlock()
		n, err := w.Write(p)
		c.mu.Lock()
		c.buf.Return()
		total += int64(n)
		if !c.closed { // Close dropped the buffer
			c.buf.Consume(n)
			c.consumed()
		}
		if err == nil && n < len(p) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return total, err
		}
	}
}

// Write implements [net.Conn].
func (c *Conn) Write(p []byte) (int, error) {
	if len(p) == 0 { // only asks whether a write could succeed, and does not wait
		c.mu.Lock()
		defer c.mu.Unlock()
		return 0, c.opError("write", c.writeEnd())
	}
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	n, err := c.write(p)
	return n, c.opError("write", err)
}

func (c *Conn) write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.writeEnd(); err != nil {
		return 0, err
	}
	c.writeBuf = p
	c.emit()
	for len(c.writeBuf) > 0 {
		if err := c.writeEnd(); err != nil {
			n := len(p) - len(c.writeBuf)
			c.writeBuf = nil
			return n, err
		}
		c.writeCond.Wait()
	}
	c.writeBuf = nil
	return len(p), nil
}

// writeEnd returns why no write can succeed any more, or nil. The caller holds c.mu.
func (c *Conn) writeEnd() error {
	switch {
	case c.closed:
		return net.ErrClosed
	case c.writeDL.Passed():
		return os.ErrDeadlineExceeded
	case c.shut:
		return syscall.EPIPE
	case c.state == stateDead:
		return c.err
	}
	return nil
}

// CloseWrite ends the direction to the guest: the server reads io.EOF after the bytes already
// written.
func (c *Conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("shutdown", net.ErrClosed)
	}
	c.shut = true
	c.writeCond.Broadcast()
	c.emit()
	return nil
}

// Close implements [net.Conn]. It does not wait for the guest. If a direction has not ended
// yet, the guest sees a reset.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	c.readDL.Stop()
	c.writeDL.Stop()
	c.buf.Reset()
	c.readCond.Broadcast()
	c.writeCond.Broadcast()
	switch {
	case c.state == stateDead:
	case c.shut && c.peerShut:
		c.giveUp = time.Now().Add(lingerTime)
		c.link.tick()
		c.finish()
	default:
		c.reset(net.ErrClosed)
	}
	return nil
}

// lingerTime is how long a closed connection waits for the guest's next acknowledgement.
const lingerTime = time.Minute

// finish forgets a connection that is completely done. The caller holds c.mu.
func (c *Conn) finish() {
	if c.closed && c.state == stateOpen && c.finSent && c.una == c.nxt && c.peerShut {
		c.flushAck()
		c.die(net.ErrClosed)
	}
}

// abort ends the connection at once, with a reset to the guest.
func (c *Conn) abort(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != stateDead {
		c.reset(err)
	}
}

// reset tells the guest that the connection is gone, and ends it. The caller holds c.mu.
func (c *Conn) reset(err error) {
	tell := c.state == stateOpen || c.nxt != c.una
	dialing := c.state == stateDialing
	c.die(err)
	if tell {
		c.sendReset(dialing)
	}
}

// sendReset sends a reset once the guest has room. A connection that the guest has not
// accepted has nothing to acknowledge. The caller holds c.mu.
func (c *Conn) sendReset(dialing bool) {
	flags := byte(flagRST | flagACK)
	if dialing {
		flags = flagRST
	}
	c.owesReset = !c.transmit(flags, c.nxt, nil)
}

// die ends the connection. Later calls return err once the received bytes are read. The
// caller holds c.mu.
func (c *Conn) die(err error) {
	if c.state == stateDead {
		return
	}
	if c.state == stateDialing {
		close(c.opened)
	}
	c.state, c.err, c.resendAt = stateDead, err, time.Time{}
	for i := range c.unacked {
		c.unacked[i].free()
	}
	for i := range c.early {
		c.early[i].data.free()
	}
	c.unacked, c.early, c.held = nil, nil, 0
	c.readCond.Broadcast()
	c.writeCond.Broadcast()
	c.link.forget(c)
}

// SetDeadline implements [net.Conn].
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadlines(t, &c.readDL, &c.writeDL) }

// SetReadDeadline implements [net.Conn].
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadlines(t, &c.readDL) }

// SetWriteDeadline implements [net.Conn].
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(t, &c.writeDL) }

func (c *Conn) setDeadlines(t time.Time, dls ...*connbuf.Deadline) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	for _, dl := range dls {
		dl.Set(t)
	}
	return nil
}

// LocalAddr implements [net.Conn]. It is the client's address that the guest sees.
func (c *Conn) LocalAddr() net.Addr { return c.netAddr(c.flow.host) }

// RemoteAddr implements [net.Conn].
func (c *Conn) RemoteAddr() net.Addr { return c.netAddr(c.flow.guest) }

func (c *Conn) netAddr(port uint16) net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.flow.addr(), port))
}

// opError wraps an error as package net does.
func (c *Conn) opError(op string, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
