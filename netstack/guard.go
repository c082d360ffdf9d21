package netstack

import (
	"encoding/binary"
	"fmt"
	"net"
)

// minFrame is the size of an Ethernet header in bytes. The switch of
// gvisor-tap-vsock reads it from each frame without a look at its length, and
// makes room for whatever length a frame announces; what comes from a guest
// must not end the supervisor that way.
const minFrame = 14

// frameGuard checks the lengths in a stream of frames as they are read.
type frameGuard struct {
	net.Conn
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
	net.Conn
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
