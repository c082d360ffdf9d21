package agent

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

// packet gathers an archive into frames of full length. While it fills one,
// the one before is on its way. It must be closed.
type packet struct {
	buf    []byte // the frame being filled: room for its header, then the payload
	full   chan []byte
	empty  chan []byte
	sender sync.WaitGroup

	mu  sync.Mutex
	err error // of the sender
}

const frameSize = guest.HeaderSize + guest.MaxPayload

// newPacket returns a packet whose frames send sends, one after the other.
func newPacket(send func(frame []byte) error) *packet {
	const buffers = 3 // one is filled, one is sent, one keeps both from waiting
	o := &packet{full: make(chan []byte, buffers), empty: make(chan []byte, buffers)}
	for range buffers {
		o.empty <- make([]byte, guest.HeaderSize, frameSize)
	}
	o.buf = <-o.empty
	o.sender.Go(func() {
		for b := range o.full {
			if o.failed() == nil {
				if err := send(b); err != nil {
					o.mu.Lock()
					o.err = err
					o.mu.Unlock()
				}
			}
			o.empty <- b[:guest.HeaderSize]
		}
	})
	return o
}

func (o *packet) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// close waits for the sender, and returns its error. What is not flushed is
// lost.
func (o *packet) close() error {
	close(o.full)
	o.sender.Wait()
	return o.err
}

// flush sends what there is, and has room afterwards.
func (o *packet) flush() error {
	if err := o.failed(); err != nil {
		return err
	}
	o.full <- o.buf
	o.buf = <-o.empty
	return nil
}

// append adds bytes, which may be more than a frame holds.
func (o *packet) append(b []byte) error {
	for len(b) > 0 {
		if len(o.buf) == cap(o.buf) {
			if err := o.flush(); err != nil {
				return err
			}
		}
		n := copy(o.buf[len(o.buf):cap(o.buf)], b)
		o.buf = o.buf[:len(o.buf)+n]
		b = b[n:]
	}
	return nil
}

// smallHeader is more than a header takes that has no large attributes.
const smallHeader = 8 << 10

func (o *packet) header(h *tar.Header, data []pax.Extent) error {
	if len(data) > 0 || len(h.PAXRecords) > 0 || cap(o.buf)-len(o.buf) < smallHeader+2*len(h.Name)+2*len(h.Linkname) {
		b, err := pax.AppendHeader(nil, h, data)
		if err != nil {
			return err
		}
		return o.append(b)
	}
	b, err := pax.AppendHeader(o.buf, h, data)
	if err != nil {
		return err
	}
	o.buf = b
	return nil
}

// copy adds a part of a file.
func (o *packet) copy(ctx context.Context, fd int, e pax.Extent) error {
	for at, end := e.Offset, e.Offset+e.Size; at < end; {
		if len(o.buf) == cap(o.buf) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := o.flush(); err != nil {
				return err
			}
		}
		room := o.buf[len(o.buf):cap(o.buf)]
		n, err := unix.Pread(fd, room[:min(int64(len(room)), end-at)], at)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return fmt.Errorf("%d bytes are missing: %w", end-at, io.ErrUnexpectedEOF)
		}
		o.buf = o.buf[:len(o.buf)+n]
		at += int64(n)
	}
	return nil
}

// pad fills up the last block of size bytes.
func (o *packet) pad(size int64) error {
	var b [512]byte
	return o.append(pax.AppendPadding(b[:0], size))
}

// end writes the archive's end, and sends what is left.
func (o *packet) end() error {
	if err := o.append(pax.AppendEnd(nil)); err != nil {
		return err
	}
	return o.flush()
}
