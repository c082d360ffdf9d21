//go:build !unix

package netstack

// toHost copies the guest's bytes to the host's socket until their end. Its buffer has up to
// most bytes.
func (c guestConn) toHost(h hostConn, most int) error { return pump(h, c, most) }
