package forward

import "net"

// idleReader reads a connection. Windows has no way to wait without a buffer,
// so the first bytes after a while come in a small one.
type idleReader struct {
	conn  net.Conn
	small [2 << 10]byte
	busy  bool
}

func newIdleReader(c net.Conn) *idleReader { return &idleReader{conn: c} }

// read waits for bytes and returns them. It may give the buffer back.
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
