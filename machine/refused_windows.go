package machine

import (
	"errors"

	"golang.org/x/sys/windows"
)

// isRefused tells whether nobody listens at a socket; one whose file is gone
// gives the same error.
func isRefused(err error) bool { return errors.Is(err, windows.WSAECONNREFUSED) }
