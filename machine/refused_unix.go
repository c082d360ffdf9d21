//go:build unix

package machine

import (
	"errors"
	"syscall"
)

// isRefused tells whether nobody listens at a socket.
func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
