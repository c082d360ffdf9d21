package netstack

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
)

// unwritable is a connection whose writes fail.
type unwritable struct {
	net.Conn
	err    error
	closed bool
}

func (f *unwritable) Write([]byte) (int, error) { return 0, f.err }

func (f *unwritable) Close() error {
	f.closed = true
	return nil
}

// TestWriteGuard: the switch must not see a write error.
func TestWriteGuard(t *testing.T) {
	for _, c := range []struct {
		err    error
		hears  error
		closes bool
	}{
		{io.ErrClosedPipe, nil, true},
		{syscall.EPIPE, nil, true},
		{syscall.ENOBUFS, syscall.ENOBUFS, false},
	} {
		f := &unwritable{err: c.err}
		if _, err := (&frameGuard{writeGuard: writeGuard{f}}).Write([]byte("frame")); !errors.Is(err, c.hears) || f.closed != c.closes {
			t.Errorf("%v: the switch hears %v; closed: %t", c.err, err, f.closed)
		}
	}
}
