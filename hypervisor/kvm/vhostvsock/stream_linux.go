package vhostvsock

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/lsub/lsub/connbuf"
)

// errGone is the error after the front-end is gone or the device was closed.
var errGone = fmt.Errorf("the vsock device is gone: %w", net.ErrClosed)

// flowKey identifies a stream within its device.
type flowKey struct{ local, peer uint32 }

// streamState is the state of a stream.
type streamState int

const (
	stateDialing streamState = iota // REQUEST is due or sent
	stateOpen
	stateClosing // closed here; the guest has not confirmed with RST yet
	stateDead    // forgotten by the device; received bytes can still be read
)

// sendFlags are the packets that a stream owes the guest.
type sendFlags uint8

const (
	owesRequest sendFlags = 1 << iota
	owesResponse
	owesShutdown
	owesCredit
	owesCreditRequest
	owesRst
)

// stream is one vsock connection. It implements net.Conn.
//
// Bytes to the guest are not buffered here. A Write lends its slice to the stream. The
// writer, or another goroutine that notices both credit and guest buffers, copies from the
// slice into the guest's memory.
type stream struct {
	d    *Device
	key  flowKey
	next *stream // in the rx queue's list; guarded by its lock
	// queued is guarded by the rx queue's lock.
	queued bool

	readMu, writeMu sync.Mutex // one Read, one Write at a time

	mu         sync.Mutex // guards what follows; innermost but for Device.mu
	readCond   sync.Cond
	writeCond  sync.Cond
	state      streamState
	err        error // why the stream is dead
	closed     bool  // Close was called
	opened     chan struct{}
	requested  bool // REQUEST was sent
	refused    bool // the stream died before it was opened
	owes       sendFlags
	localShut  uint32 // shutdownRecv, shutdownSend: directions that we have ended
	peerShut   uint32 // directions that the guest has ended
	linger     *time.Timer
	reserved   int64 // of the device's buffer budget
	readDL     connbuf.Deadline
	writeDL    connbuf.Deadline
	creditWait *time.Timer // asks for credit if the guest does not tell

	// Guest to host.
	buf       connbuf.Buffer
	bufAlloc  uint32 // advertised size of buf
	fwdCnt    uint32 // bytes taken out of buf
	fwdSent   uint32 // fwdCnt as the guest knows it
	readBuf   []byte // of a waiting Read
	readBytes int    // put into readBuf
	sink      nowWriter
	sinkN     int64 // bytes that sink has taken
	sinkErr   error // error of sink

	// Host to guest.
	writeBuf   []byte // the rest of a waiting Write
	txCnt      uint32
	peerAlloc  uint32
	peerFwdCnt uint32
}

func newStream(d *Device, key flowKey, state streamState) *stream {
	s := &stream{d: d, key: key, state: state}
	s.readCond.L, s.writeCond.L = &s.mu, &s.mu
	s.readDL.Cond, s.writeDL.Cond = &s.readCond, &s.writeCond
	return s
}

// Read implements net.Conn. It returns all bytes that came before the stream's end, then the
// end.
func (s *stream) Read(p []byte) (int, error) {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	n, err := s.read(p)
	return n, s.opError("read", err)
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	for {
		if s.closed {
			s.mu.Unlock()
			return 0, net.ErrClosed
		}
		if s.readDL.Passed() {
			s.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		}
		if len(p) == 0 {
			s.mu.Unlock()
			return 0, nil
		}
		if s.buf.Len() > 0 {
			n := s.buf.Take(p)
			s.consumed(n)
			return n, nil
		}
		if err := s.readEnd(); err != nil {
			s.mu.Unlock()
			return 0, err
		}
		// From here on, the ring's goroutine copies straight into p.
		s.readBuf, s.readBytes = p, 0
		s.readCond.Wait()
		n := s.readBytes
		s.readBuf, s.readBytes = nil, 0
		if n > 0 {
			s.mu.Unlock()
			return n, nil
		}
	}
}

// readEnd returns why no more bytes will come, or nil. The caller holds s.mu.
func (s *stream) readEnd() error {
	switch {
	case s.localShut&shutdownRecv != 0 || s.peerShut&shutdownSend != 0:
		return io.EOF
	case s.state == stateDead:
		return s.err
	}
	return nil
}

// consumed counts n bytes as read, tells the guest if that is worth a packet, and unlocks
// s.mu.
func (s *stream) consumed(n int) {
	s.fwdCnt += uint32(n)
	tell := s.creditDue()
	if tell {
		s.owes |= owesCredit
	}
	if s.state == stateDead && s.buf.Len() == 0 {
		s.d.release(s)
	}
	s.mu.Unlock()
	if tell {
		s.d.rx.submit(s)
	}
}

// creditDue reports whether to tell the guest of free room. With a quarter of the buffer, a
// bulk sender continues without a packet per read.
func (s *stream) creditDue() bool {
	return s.state == stateOpen && s.fwdCnt-s.fwdSent >= s.bufAlloc/4 &&
		(s.peerShut&shutdownSend)|(s.localShut&shutdownRecv) == 0
}

// nowWriter is a writer that WriteTo can write to without waiting: the queue's goroutine
// writes to it straight from the guest's memory. WriteNow may write only some of the bytes,
// or none.
type nowWriter interface{ WriteNow(p [][]byte) (int, error) }

// WriteTo implements io.WriterTo. It saves the buffer and the copy of io.Copy.
func (s *stream) WriteTo(w io.Writer) (total int64, err error) {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	if d, ok := w.(nowWriter); ok {
		s.mu.Lock()
		s.sink, s.sinkN, s.sinkErr = d, 0, nil
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			total += s.sinkN
			s.sink = nil
			s.mu.Unlock()
		}()
	}
	for {
		p, err := s.lend()
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := w.Write(p)
		total += int64(n)
		s.mu.Lock()
		s.buf.Return()
		if s.closed { // Close dropped the buffer
			s.mu.Unlock()
		} else {
			s.buf.Consume(n)
			s.consumed(n)
		}
		if err == nil && n < len(p) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return total, err
		}
	}
}

// lend waits for bytes and returns some of them, which stay in the buffer. WriteTo returns
// its error.
func (s *stream) lend() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.closed {
			return nil, s.opError("read", net.ErrClosed)
		}
		if s.readDL.Passed() {
			return nil, s.opError("read", os.ErrDeadlineExceeded)
		}
		if s.sinkErr != nil {
			return nil, s.sinkErr
		}
		if s.buf.Len() > 0 {
			return s.buf.Lend(), nil
		}
		if err := s.readEnd(); err != nil {
			return nil, s.opError("read", err)
		}
		s.readCond.Wait()
	}
}

// Write implements net.Conn. When it returns nil, the bytes are in the guest's memory: they
// survive the end of the stream and of the host process.
func (s *stream) Write(p []byte) (int, error) {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	n, err := s.write(p)
	return n, s.opError("write", err)
}

func (s *stream) write(p []byte) (int, error) {
	s.mu.Lock()
	if err := s.writeEnd(); err != nil || len(p) == 0 {
		s.mu.Unlock()
		return 0, err
	}
	s.writeBuf = p
	canSend := s.credit() > 0
	s.mu.Unlock()
	if canSend {
		s.d.rx.submit(s) // copies as much as possible now
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.writeBuf) > 0 {
		if err := s.writeEnd(); err != nil {
			n := len(p) - len(s.writeBuf)
			s.writeBuf = nil
			return n, err
		}
		if s.credit() == 0 {
			s.armCreditWait()
		}
		s.writeCond.Wait()
	}
	s.writeBuf = nil
	return len(p), nil
}

// writeEnd returns why no write can succeed any more, or nil. The caller holds s.mu.
func (s *stream) writeEnd() error {
	switch {
	case s.closed:
		return net.ErrClosed
	case s.writeDL.Passed():
		return os.ErrDeadlineExceeded
	case s.localShut&shutdownSend != 0 || s.peerShut&shutdownRecv != 0:
		return syscall.EPIPE
	case s.state == stateDead:
		return s.err
	}
	return nil
}

// credit returns how many bytes the guest has room for. The caller holds s.mu.
func (s *stream) credit() uint32 { return credit(s.peerAlloc, s.txCnt, s.peerFwdCnt) }

// armCreditWait asks the guest for its credit if it stays silent. Linux sends credit by
// itself, and an immediate request would only bring tiny credits.
func (s *stream) armCreditWait() {
	const patience = 100 * time.Millisecond
	if s.creditWait != nil {
		s.creditWait.Reset(patience)
		return
	}
	s.creditWait = time.AfterFunc(patience, func() {
		s.mu.Lock()
		ask := s.state == stateOpen && len(s.writeBuf) > 0 && s.credit() == 0
		if ask {
			s.owes |= owesCreditRequest
			s.armCreditWait()
		}
		s.mu.Unlock()
		if ask {
			s.d.rx.submit(s)
		}
	})
}

// readFromBufs are the buffers of ReadFrom.
var readFromBufs = sync.Pool{New: func() any { b := make([]byte, 128<<10); return &b }}

// ReadFrom implements io.ReaderFrom with a large, reused buffer.
func (s *stream) ReadFrom(r io.Reader) (int64, error) {
	b := readFromBufs.Get().(*[]byte)
	defer readFromBufs.Put(b)
	var total int64
	for {
		n, rerr := r.Read(*b)
		if n > 0 {
			w, err := s.Write((*b)[:n])
			total += int64(w)
			if err != nil {
				return total, err
			}
		}
		if rerr == io.EOF {
			return total, nil
		}
		if rerr != nil {
			return total, rerr
		}
	}
}

// opError wraps an error as package net does.
func (s *stream) opError(op string, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return &net.OpError{Op: op, Net: network, Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: err}
}

// LocalAddr implements net.Conn.
func (s *stream) LocalAddr() net.Addr { return &Addr{CID: hostCID, Port: s.key.local} }

// RemoteAddr implements net.Conn.
func (s *stream) RemoteAddr() net.Addr { return &Addr{CID: s.d.cid, Port: s.key.peer} }
