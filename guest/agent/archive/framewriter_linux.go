package archive

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/rootfs/pax"
)

// frameWriter collects an archive's bytes in frames of full length. While it fills one,
// the one before is on its way. It must be closed.
type frameWriter struct {
	buf    []byte // the frame being filled: room for its header, then the payload
	full   chan []byte
	empty  chan []byte
	sender sync.WaitGroup

	mu  sync.Mutex
	err error // of the sender
}

const frameSize = guest.HeaderSize + guest.MaxPayload

// newFrameWriter returns a writer whose frames send sends, one after the other.
func newFrameWriter(send func(frame []byte) error) *frameWriter {
	const buffers = 3 // one is filled, one is sent, one keeps both from waiting
	w := &frameWriter{full: make(chan []byte, buffers), empty: make(chan []byte, buffers)}
	for range buffers {
		w.empty <- make([]byte, guest.HeaderSize, frameSize)
	}
	w.buf = <-w.empty
	w.sender.Go(func() {
		for b := range w.full {
			if w.failed() == nil {
				if err := send(b); err != nil {
					w.mu.Lock()
					w.err = err
					w.mu.Unlock()
				}
			}
			w.empty <- b[:guest.HeaderSize]
		}
	})
	return w
}

func (w *frameWriter) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// close waits for the sender, and returns its error. What is not flushed is
// lost.
func (w *frameWriter) close() error {
	close(w.full)
	w.sender.Wait()
	return w.err
}

// flush sends what there is, and has room afterwards.
func (w *frameWriter) flush() error {
	if err := w.failed(); err != nil {
		return err
	}
	w.full <- w.buf
	w.buf = <-w.empty
	return nil
}

// append adds bytes, which may be more than a frame holds.
func (w *frameWriter) append(b []byte) error {
	for len(b) > 0 {
		if len(w.buf) == cap(w.buf) {
			if err := w.flush(); err != nil {
				return err
			}
		}
		n := copy(w.buf[len(w.buf):cap(w.buf)], b)
		w.buf = w.buf[:len(w.buf)+n]
		b = b[n:]
	}
	return nil
}

// smallHeader is more than a header takes that has no large attributes.
const smallHeader = 8 << 10

func (w *frameWriter) header(h *tar.Header, data []pax.Extent) error {
	if len(data) > 0 || len(h.PAXRecords) > 0 || cap(w.buf)-len(w.buf) < smallHeader+2*len(h.Name)+2*len(h.Linkname) {
		b, err := pax.AppendHeader(nil, h, data)
		if err != nil {
			return err
		}
		return w.append(b)
	}
	b, err := pax.AppendHeader(w.buf, h, data)
	if err != nil {
		return err
	}
	w.buf = b
	return nil
}

// copy adds a part of a file.
func (w *frameWriter) copy(ctx context.Context, fd int, e pax.Extent) error {
	for at, end := e.Offset, e.Offset+e.Size; at < end; {
		if len(w.buf) == cap(w.buf) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := w.flush(); err != nil {
				return err
			}
		}
		room := w.buf[len(w.buf):cap(w.buf)]
		n, err := unix.Pread(fd, room[:min(int64(len(room)), end-at)], at)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return fmt.Errorf("%d bytes are missing: %w", end-at, io.ErrUnexpectedEOF)
		}
		w.buf = w.buf[:len(w.buf)+n]
		at += int64(n)
	}
	return nil
}

// pad fills up the last block of size bytes.
func (w *frameWriter) pad(size int64) error {
	var b [512]byte
	return w.append(pax.AppendPadding(b[:0], size))
}

// end writes the archive's end, and sends what is left.
func (w *frameWriter) end() error {
	if err := w.append(pax.AppendEnd(nil)); err != nil {
		return err
	}
	return w.flush()
}
