//go:build !unix

package vz

import (
	"errors"
	"net"
	"os"
)

// datagramPair fails: this system has no such sockets.
func datagramPair() (net.Conn, *os.File, error) { return nil, nil, errors.ErrUnsupported }

// isLocked does not know.
func isLocked(*os.File) bool { return false }
