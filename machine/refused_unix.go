//go:build unix

package machine

import (
	"errors"
	"io"
	"syscall"
)

// isRefused tells whether nobody listens at a socket.
func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// lacksUnixSockets is for other systems.
func lacksUnixSockets(error) bool { return false }

// IsCut tells whether the other side of a connection went away.
func IsCut(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
