package forward

import "net"

// idleReader reads a connection. Windows cannot wait without a buffer, so the first bytes
// after an idle time are read into a small one.
type idleReader struct {
	conn  net.Conn
	small [2 << 10]byte
	busy  bool
}

func newIdleReader(c net.Conn) *idleReader { return &idleReader{conn: c} }

// read waits for bytes and returns them. It may return *buf to the pool.
func (r *idleReader) read(buf **[bufferSize]byte) ([]byte, error) {
	if r.busy {
		n, err := r.conn.Read((*buf)[:])
		r.busy = n == bufferSize
		return (*buf)[:n], err
	}
	buffers.Put(*buf)
	*buf = nil
	n, err := r.conn.Read(r.small[:])
	r.busy = n == len(r.small)
	return r.small[:n], err
}
