package guesttest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
)

// serveStream serves one stream to its last frame.
func (g *Guest) serveStream(c net.Conn) {
	s := newStream(c)
	var req guestv1.StreamRequest
	if err := s.r.Expect(guest.FrameRequest, &req); err != nil {
		return
	}
	if share := req.GetShare(); share != nil {
		g.streamShare(share, s, c)
		return
	}
	if req.GetEchoes() != nil { // nobody changes anything
		s.w.SendMessage(guest.FrameStarted, &guestv1.Started{})
		io.Copy(io.Discard, c)
		return
	}
	exit, err := g.answer(&req, s)
	if err != nil {
		s.w.SendMessage(guest.FrameError, guest.ErrorMessage(err))
		return
	}
	s.w.SendMessage(guest.FrameExit, exit)
}

func (g *Guest) answer(req *guestv1.StreamRequest, s *stream) (*guestv1.Exit, error) {
	if req.Version != g.Version {
		return nil, guest.OtherVersion(g.Version, req.Version)
	}
	switch {
	case req.GetExec() != nil:
		return g.exec(req.GetExec(), s)
	case req.GetImportImage() != nil:
		return g.importImage(req.GetImportImage(), s)
	case req.GetExport() != nil:
		return g.export(req.GetExport(), s)
	}
	return nil, guest.NothingAsked()
}

func (g *Guest) importImage(m *guestv1.ImportImage, s *stream) (*guestv1.Exit, error) {
	if g.disk.hasImage(m.Id) {
		return &guestv1.Exit{}, nil
	}
	s.grant(guest.StdinWindow)
	s.w.SendMessage(guest.FrameStarted, &guestv1.Started{})
	go s.pump()
	digest := sha256.New()
	n, err := io.Copy(digest, &s.stdin)
	if err != nil {
		return nil, err
	}
	if g.MaxImage > 0 && n > g.MaxImage {
		return nil, guest.DiskFull(syscall.ENOSPC)
	}
	if id := fmt.Sprintf("sha256:%x", digest.Sum(nil)); id != m.Id {
		return nil, guest.Errorf(guestv1.ErrorCode_ERROR_CODE_BAD_IMAGE, "", "the image is %s, not %s", id, m.Id)
	}
	return &guestv1.Exit{}, g.disk.addImage(m.Id)
}

// stream is a stream that was taken on.
type stream struct {
	r       *guest.Reader
	w       *guest.Writer
	stdin   inbox
	keys    inbox // of a terminal beside pipes
	signals chan int
	resized chan struct{}

	mu         sync.Mutex
	rows, cols uint16
}

func newStream(c net.Conn) *stream {
	s := &stream{
		r: guest.NewReader(c), w: guest.NewWriter(c),
		signals: make(chan int, 16), resized: make(chan struct{}, 16),
	}
	s.stdin.changed, s.keys.changed = sync.NewCond(&s.stdin.mu), sync.NewCond(&s.keys.mu)
	s.stdin.taken, s.keys.taken = s.grant, s.grantKeys
	return s
}

func (s *stream) grant(n int)     { s.sendWindow(guest.FrameWindow, n) }
func (s *stream) grantKeys(n int) { s.sendWindow(guest.FrameKeysWindow, n) }

func (s *stream) sendWindow(t guest.FrameType, n int) {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n))
	s.w.Send(t, b[:])
}

// pump handles the host's frames until the stream ends, which is SIGHUP to
// the command.
func (s *stream) pump() {
	for {
		t, p, err := s.r.Next()
		if err != nil {
			s.stdin.end(io.ErrUnexpectedEOF)
			s.keys.end(io.ErrUnexpectedEOF)
			s.send(1)
			return
		}
		switch t {
		case guest.FrameStdin:
			s.stdin.put(p)
		case guest.FrameKeys:
			s.keys.put(p)
		case guest.FrameSignal:
			s.send(int(p[0]))
		case guest.FrameResize:
			s.resize(binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:]))
			select {
			case s.resized <- struct{}{}:
			default:
			}
		}
	}
}

func (s *stream) resize(rows, cols uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows, s.cols = rows, cols
}

func (s *stream) send(signal int) {
	select {
	case s.signals <- signal:
	default:
	}
}

// inbox is input that was sent and is not yet read. It never blocks the
// sender, who keeps to the window; a signal must not wait behind it.
type inbox struct {
	mu      sync.Mutex
	changed *sync.Cond
	buf     bytes.Buffer
	err     error
	taken   func(int) // told how much was read
}

// put adds p; an empty p is the end.
func (b *inbox) put(p []byte) {
	if len(p) == 0 {
		b.end(io.EOF)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Write(p)
	b.changed.Signal()
}

func (b *inbox) end(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = err
	}
	b.changed.Signal()
}

func (b *inbox) Read(p []byte) (int, error) {
	b.mu.Lock()
	for b.buf.Len() == 0 && b.err == nil {
		b.changed.Wait()
	}
	n, err := b.buf.Read(p)
	if n == 0 {
		err = b.err
	}
	b.mu.Unlock()
	if n > 0 {
		b.taken(n)
	}
	return n, err
}
