package supervisor

import (
	"errors"
	"io"
	"net"
	"sync"
)

// copyBuffer is the size of a tunnel's buffers in bytes, for connections that
// cannot move bytes between themselves.
const copyBuffer = 256 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// tunnels are the streams that are carried to and from the guest.
type tunnels struct {
	mu     sync.Mutex
	closed bool
	open   map[net.Conn]struct{}
	wg     sync.WaitGroup
}

// run copies both ways between a command's connection and the guest's until
// both directions have ended, and closes them. An end of file in one direction
// is passed on and leaves the other one open. head was read from down already.
//
// A guest that takes no more may still have something to say, such as how its
// command ended, so a failure on the way to it only ends that direction. One
// on the way back means that nobody listens, and ends both.
func (t *tunnels) run(down net.Conn, head []byte, up net.Conn) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		down.Close()
		up.Close()
		return
	}
	if t.open == nil {
		t.open = map[net.Conn]struct{}{}
	}
	t.open[down], t.open[up] = struct{}{}, struct{}{}
	t.wg.Add(1)
	t.mu.Unlock()
	defer t.wg.Done()

	cut := func() { down.Close(); up.Close() }
	deaf, mute := make(chan struct{}), make(chan struct{}) // the guest takes, says no more
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := up.Write(head)
		if err == nil {
			err = pass(up, down)
		}
		if err == nil {
			return
		}
		closeWrite(up)
		close(deaf)
		cutIf(mute, cut)
		// A command that waits for room to write would not hear what the guest
		// says, and Linux does not wake it when nobody will read.
		io.Copy(io.Discard, down)
	})
	wg.Go(func() {
		if pass(down, up) != nil {
			cut()
		}
		close(mute)
		cutIf(deaf, cut)
	})
	wg.Wait()
	cut()
	t.mu.Lock()
	delete(t.open, down)
	delete(t.open, up)
	t.mu.Unlock()
}

// close cuts every tunnel and waits for their end.
func (t *tunnels) close() {
	t.mu.Lock()
	t.closed = true
	for c := range t.open {
		c.Close()
	}
	t.mu.Unlock()
	t.wg.Wait()
}

// pass copies one direction to its end of file, and passes that on.
func pass(dst, src net.Conn) error {
	buf := copyBuffers.Get().(*[copyBuffer]byte)
	defer copyBuffers.Put(buf)
	if _, err := io.CopyBuffer(dst, src, buf[:]); err != nil {
		return err
	}
	return closeWrite(dst)
}

func closeWrite(c net.Conn) error {
	h, ok := c.(interface{ CloseWrite() error })
	if !ok {
		return errors.New("the connection cannot be closed one way")
	}
	return h.CloseWrite()
}

// cutIf cuts where the other direction has ended too.
func cutIf(ended <-chan struct{}, cut func()) {
	select {
	case <-ended:
		cut()
	default:
	}
}
