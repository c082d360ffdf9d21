//go:build !unix

package netstack

// toHost moves what the guest sends to the host's socket until its end. Its buffer
// has most bytes at most.
func (c guestConn) toHost(h hostConn, most int) error { return pump(h, c, most) }
