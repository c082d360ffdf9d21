package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/virtionet"
)

// guestIO is all of the host that reads raw bytes of the guest: the devices of the
// hypervisor's driver, the network behind the card, and the TCP to the guest's loopback.
// The supervisor decides before what they may do, and gets nothing but connections from
// them. So they can become a process of their own, without rights.
type guestIO interface {
	hypervisor.VM
	// Paused is that of [hypervisor.Paused]; nil where the VM never pauses by itself.
	Paused() error
	// Description is that of [hypervisor.Described]; "" for none.
	Description() string
	// Connect begins a TCP connection to an address of the guest's loopback by the VM's
	// card. It does not wait for the answer. Where there is no such way, it fails.
	Connect(at netip.AddrPort) (FastConn, error)
	// AttachFS is that of [hypervisor.FileSystems]. Where there are no such devices, it
	// fails with [errors.ErrUnsupported].
	AttachFS(ctx context.Context, tag string, queues int, connect func(context.Context) (*net.UnixConn, error)) (detach func(context.Context) error, err error)
}

// FastConn is a TCP connection by the VM's card.
type FastConn interface {
	net.Conn
	// Opened waits for the guest's answer. Its error is the refusal, or that of ctx.
	Opened(ctx context.Context) error
}

// Network carries the frames of the VM's network card. A VM has one for its
// whole life.
type Network interface {
	// Serve moves frames until conn fails or ctx is done.
	Serve(ctx context.Context, conn net.Conn, framing virtionet.Framing) error
	// Attach takes the place of Serve where the hypervisor hands a card over. It is
	// called for each VM, before its guest runs.
	Attach(card virtionet.Card) virtionet.Receiver
	// BootArgs says how the guest sets its card up.
	BootArgs() guest.BootArgs
	// MAC is the address of the guest's card.
	MAC() net.HardwareAddr
	// Connect is that of the supervisor's guestIO. It needs a card that is attached.
	Connect(at netip.AddrPort) (FastConn, error)
	// Detach ends the connections by the card that was attached last.
	Detach()
}

// localIO is a guestIO in this process.
type localIO struct {
	hypervisor.VM
	network Network // nil for none
}

func (l localIO) Paused() error {
	if p, ok := l.VM.(hypervisor.Paused); ok {
		return p.Paused()
	}
	return nil
}

func (l localIO) Description() string {
	if d, ok := l.VM.(hypervisor.Described); ok {
		return d.Description()
	}
	return ""
}

func (l localIO) AttachFS(ctx context.Context, tag string, queues int, connect func(context.Context) (*net.UnixConn, error)) (func(context.Context) error, error) {
	if f, ok := l.VM.(hypervisor.FileSystems); ok {
		return f.AttachFS(ctx, tag, queues, connect)
	}
	return nil, fmt.Errorf("the VM takes no file system devices: %w", errors.ErrUnsupported)
}

// errNoCard says that a VM's card cannot be reached from here.
var errNoCard = errors.New("no connections by the VM's card")

func (l localIO) Connect(at netip.AddrPort) (FastConn, error) {
	if l.network == nil {
		return nil, errNoCard
	}
	return l.network.Connect(at)
}

func (l localIO) Wait() error {
	err := l.VM.Wait()
	if l.network != nil {
		l.network.Detach()
	}
	return err
}
