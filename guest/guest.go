// Package guest is the contract between the host and what runs in the utility
// VM, and the host's client of it. It alone knows the protocol: what lies
// between (the supervisor, the hypervisor) only carries bytes.
//
// Control requests are RPC (guest.proto, served with connect); the bytes of a
// process or an image ride a stream of their own, in frames ([Reader],
// [Writer]). A [Client] reaches the guest through anything that dials vsock
// ports: a VM, a supervisor's tunnel, a pipe in a test:
//
//	c := guest.NewClient(dialer, version)
//	exit, err := c.Exec(ctx, &guestv1.Exec{
//		Distro: &guestv1.Distro{Id: "debian-1", Name: "debian"},
//		Argv:   [][]byte{[]byte("uname"), []byte("-a")},
//	}, guest.Stdio{Stdout: os.Stdout, Stderr: os.Stderr})
//
// docs/protocol.md describes what goes over the wire.
package guest

import (
	"context"
	"fmt"
	"net"

	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hint"
)

// The vsock ports in use.
const (
	HelloPort   = 1024 // on the host: the agent's first word
	CardPort    = 1025 // on the host: the frames of a VM without a network card
	ControlPort = 1024 // in the guest: the Guest service over HTTP/1.1
	StreamPort  = 1025 // in the guest: one stream per connection
	ForwardPort = 1026 // in the guest: one stream per forwarded connection
)

// Dialer opens a stream to a vsock port of the guest.
type Dialer interface {
	Dial(ctx context.Context, port uint32) (net.Conn, error)
}

// Error is a request that the guest refused or could not carry out.
type Error struct {
	Code    guestv1.ErrorCode
	Message string
}

func (e *Error) Error() string { return e.Message }

// Errorf makes an [Error] of a code, and attaches advice where it is not "".
func Errorf(code guestv1.ErrorCode, advice, format string, args ...any) error {
	err := error(&Error{Code: code, Message: fmt.Sprintf(format, args...)})
	if advice != "" {
		err = hint.New(err, advice)
	}
	return err
}
