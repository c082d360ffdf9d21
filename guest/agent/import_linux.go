package agent

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
)

// importReader reads the stdin bytes of a stream straight from its frames. A [stdinBuffer]
// takes each packet as it comes, so that signals behind it arrive; an import has no
// signals, and lets packets wait in the kernel while it makes files, which saves most of
// the wake-ups. It is for one goroutine.
type importReader struct {
	r     *guest.Reader
	w     *guest.Writer
	chunk []byte // of a frame, good until the next
	room  int    // granted and not yet sent
	freed int    // read and not yet granted again
	err   error
}

// newImportReader grants the first window, which tells the host that its
// request was taken on.
func newImportReader(r *guest.Reader, w *guest.Writer) *importReader {
	a := &importReader{r: r, w: w}
	a.grant(importWindow)
	return a
}

func (a *importReader) grant(n int) {
	a.room += n
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n))
	a.w.Send(guest.FrameWindow, b[:]) // a broken stream shows when it is read
}

// Read returns io.EOF only where the host said that the input is whole.
func (a *importReader) Read(p []byte) (int, error) {
	if len(a.chunk) == 0 && a.err == nil {
		a.err = a.next()
	}
	if a.err != nil {
		return 0, a.err
	}
	n := copy(p, a.chunk)
	a.chunk = a.chunk[n:]
	return n, nil
}

func (a *importReader) next() error {
	if a.freed >= importWindow/4 {
		a.grant(a.freed)
		a.freed = 0
	}
	t, p, err := a.r.Next()
	switch {
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	case err != nil:
		return err
	case t != guest.FrameStdin:
		return fmt.Errorf("unexpected frame of type %d with %d bytes", t, len(p))
	case len(p) == 0:
		return io.EOF
	case len(p) > a.room:
		return fmt.Errorf("more input than was granted")
	}
	a.chunk, a.room, a.freed = p, a.room-len(p), a.freed+len(p)
	return nil
}

// drain reads what the host still sends until the stream ends, so that it is
// not cut off before it has heard how the import ended.
func (a *importReader) drain() {
	for {
		if _, _, err := a.r.Next(); err != nil {
			return
		}
	}
}

// streamBuffer is how many bytes of a stream the kernel holds for us: with the
// usual 256 KiB, a fast sender stops and starts all the time.
const streamBuffer = guest.StdinWindow

// importWindow is that of an import, which goes on with it while the host's
// processes, of which several pass its bytes on, wait for their turn.
const importWindow = 8 << 20

// setBufferSize sets the size of a vsock stream's buffer. Any other connection keeps its
// own.
func setBufferSize(conn net.Conn, size uint64) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	rc, err := c.SyscallConn()
	if err != nil {
		return
	}
	const sizeOption, maxOption = 0, 2 // SO_VM_SOCKETS_BUFFER_SIZE, SO_VM_SOCKETS_BUFFER_MAX_SIZE
	rc.Control(func(fd uintptr) {
		for _, opt := range []int{maxOption, sizeOption} {
			unix.SetsockoptUint64(int(fd), unix.AF_VSOCK, opt, size) // an error leaves it as it is
		}
	})
}
