package machine

import (
	"errors"
	"io"

	"golang.org/x/sys/windows"
)

// isRefused tells whether nobody listens at a socket; one whose file is gone
// gives the same error.
func isRefused(err error) bool { return errors.Is(err, windows.WSAECONNREFUSED) }

// lacksUnixSockets tells whether this Windows is older than version 1803 of Windows 10.
func lacksUnixSockets(err error) bool {
	return errors.Is(err, windows.WSAEAFNOSUPPORT) || errors.Is(err, windows.WSAEPROTONOSUPPORT) || errors.Is(err, windows.WSAESOCKTNOSUPPORT)
}

// IsCut tells whether the other side of a connection went away.
func IsCut(err error) bool {
	return errors.Is(err, windows.WSAECONNRESET) || errors.Is(err, windows.WSAECONNABORTED) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
