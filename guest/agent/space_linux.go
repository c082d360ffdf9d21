package agent

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/listeners"
	"github.com/lsub/lsub/guest/guestv1"
)

// space is the network of an isolated distro: a network namespace, which lasts
// as long as the distro's processes and door.
type space struct {
	addr netip.Addr // invalid in a VM without a network
	door *entrance  // a thread in the namespace, and in nothing else of the distro's
	// seen is what listens in it.
	seen *listeners.Space
}

// openSpace makes the network of an isolated distro, before anything runs in it.
func (d *distro) openSpace() error {
	addr, err := d.takeAddress()
	if err != nil {
		return err
	}
	var namespace *os.File
	door, err := newEntrance(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		namespace, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	defer namespace.Close()
	s := &space{addr: addr, door: door}
	s.seen = &listeners.Space{Distro: d.spec.Id, Do: s.do}
	err = d.a.cfg.Network.Attach(namespace, addr)
	if err == nil {
		err = s.do(func() error { return d.a.cfg.Network.SetUpDistro(addr) })
	}
	if err != nil {
		door.close()
		d.a.cfg.Network.Detach(addr)
		return fmt.Errorf("network: %w", err)
	}
	d.setSpace(s)
	return nil
}

// takeAddress chooses the distro's address, which no other gets until it is
// forgotten.
func (d *distro) takeAddress() (netip.Addr, error) {
	d.a.mu.Lock()
	defer d.a.mu.Unlock()
	taken := map[netip.Addr]bool{}
	for _, other := range d.a.distros {
		taken[other.address] = true
	}
	addr, err := d.a.cfg.Network.Free(d.spec.Id, taken)
	if err != nil {
		return addr, fmt.Errorf("%w: %s; the profile's network.subnet makes it larger", err, d.a.cfg.Network.Address.Masked())
	}
	d.address = addr
	return addr, nil
}

// closeSpace removes the distro's network when its processes are gone.
func (d *distro) closeSpace() {
	s := d.ownSpace()
	if s == nil {
		return
	}
	d.setSpace(nil)
	s.door.close()
	if err := d.a.cfg.Network.Detach(s.addr); err != nil {
		d.a.log.Warn("remove a distro's network", "distro", d.spec.Name, "err", err)
	}
}

// network returns the distro's own network, nil where it has the VM's or is
// nil itself. The network of an isolated distro that comes or goes is an error.
func (d *distro) network() (*space, error) {
	if d == nil || !d.spec.Isolated {
		return nil, nil
	}
	if s := d.ownSpace(); s != nil {
		return s, nil
	}
	return nil, guest.Errorf(guestv1.ErrorCode_ERROR_CODE_NOT_FOUND, "", "the distro does not run")
}

// ownSpace returns the network of an isolated distro while it stands.
func (d *distro) ownSpace() *space {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.space
}

func (d *distro) setSpace(s *space) {
	d.mu.Lock()
	d.space = s
	d.mu.Unlock()
	d.a.mu.Lock()
	d.a.tellChange()
	d.a.mu.Unlock()
}

// do runs f, which must be quick, on a thread in the namespace.
func (s *space) do(f func() error) error {
	_, err := inSpace(s, func() (struct{}, error) { return struct{}{}, f() })
	return err
}

// socket makes a socket in the namespace.
func (s *space) socket(domain, kind, proto int) (int, error) {
	return inSpace(s, func() (int, error) { return unix.Socket(domain, kind, proto) })
}

// inSpace runs f, which must be quick, on a thread in the namespace of s; where s is nil,
// in the VM's.
func inSpace[T any](s *space, f func() (T, error)) (T, error) {
	if s == nil {
		return f()
	}
	return call(context.Background(), s.door, f, func(T) {})
}

// spaces returns the networks of the distros that have their own, and what is
// closed when these may have changed.
func (a *Agent) spaces() ([]*listeners.Space, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []*listeners.Space
	for _, d := range a.distros {
		if s := d.ownSpace(); s != nil {
			all = append(all, s.seen)
		}
	}
	return all, a.changed
}

// networks is what the host is told of the spaces.
func (a *Agent) networks() []*guestv1.OwnNetwork {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []*guestv1.OwnNetwork
	for id, d := range a.distros {
		if s := d.ownSpace(); s != nil {
			all = append(all, &guestv1.OwnNetwork{Distro: id, Address: s.address()})
		}
	}
	return all
}

// address is the space's as the host is told it; "" for none.
func (s *space) address() string {
	if s == nil || !s.addr.IsValid() {
		return ""
	}
	return s.addr.String()
}
