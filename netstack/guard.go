package netstack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// minFrame is the size of an Ethernet header in bytes. The switch of
// gvisor-tap-vsock reads it from each frame without a look at its length, and
// makes room for whatever length a frame announces; what comes from a guest
// must not end the supervisor that way.
const minFrame = 14

// writeGuard keeps it from the switch of gvisor-tap-vsock that a frame could not be
// written. The switch would forget the connection at once, learn of its address again
// from a frame that was read already, and end the supervisor with the next one it sends.
// It forgets the connection at the end of what is read, which comes now.
type writeGuard struct{ net.Conn }

// Write writes a frame, or closes the connection.
func (g writeGuard) Write(p []byte) (int, error) {
	n, err := g.Conn.Write(p)
	if err != nil && !errors.Is(err, syscall.ENOBUFS) { // which the switch tries again
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
	left int // bytes of the frame that are still to come
}

// Read reads what the connection gives, and fails at a frame that is too short
// or too long.
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

// datagramGuard drops the frames that are too short or too long.
type datagramGuard struct {
	writeGuard
	max int
}

// Read reads the next good frame.
func (g *datagramGuard) Read(p []byte) (int, error) {
	for {
		n, err := g.Conn.Read(p)
		if err != nil || n >= minFrame && n <= g.max {
			return n, err
		}
	}
}
