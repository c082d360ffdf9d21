package netstack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// minFrame is the size of an Ethernet header in bytes. The switch of gvisor-tap-vsock reads
// the header of each frame without a check of the frame's length, and allocates any length
// that a frame announces. A guest must not crash the supervisor that way.
const minFrame = 14

// writeGuard hides write errors from the switch of gvisor-tap-vsock. On an error, the switch
// would forget the connection at once, learn its address again from a frame that was read
// before, and crash the supervisor when it sends the next frame. Instead, the connection is
// closed: the switch forgets it after the reads end.
type writeGuard struct{ net.Conn }

// Write writes a frame, or closes the connection.
func (g writeGuard) Write(p []byte) (int, error) {
	n, err := g.Conn.Write(p)
	if err != nil && !errors.Is(err, syscall.ENOBUFS) { // the switch retries after ENOBUFS
		g.Conn.Close()
		return len(p), nil
	}
	return n, err
}

// frameGuard checks the lengths in a stream of frames as they are read.
type frameGuard struct {
	writeGuard
	max  int
	head [4]byte
	have int // bytes of head
	left int // bytes of the frame still to come
}

// Read reads from the connection, and fails at a frame that is too short or too long.
func (g *frameGuard) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	for b := p[:n]; len(b) > 0; {
		if g.left > 0 {
			k := min(g.left, len(b))
			g.left -= k
			b = b[k:]
			continue
		}
		k := copy(g.head[g.have:], b)
		g.have += k
		b = b[k:]
		if g.have < len(g.head) {
			break
		}
		size := binary.BigEndian.Uint32(g.head[:])
		if size < minFrame || int64(size) > int64(g.max) {
			return 0, fmt.Errorf("the guest sent a frame of %d bytes; they have %d to %d", size, minFrame, g.max)
		}
		g.have, g.left = 0, int(size)
	}
	return n, err
}

// datagramGuard drops frames that are too short or too long.
type datagramGuard struct {
	writeGuard
	max int
}

// Read reads the next valid frame.
func (g *datagramGuard) Read(p []byte) (int, error) {
	for {
		n, err := g.Conn.Read(p)
		if err != nil || n >= minFrame && n <= g.max {
			return n, err
		}
	}
}
