package agent

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/listeners"
	"github.com/lsub/lsub/guest/agent/nsthread"
	"github.com/lsub/lsub/guest/guestv1"
)

// netns is the network of an isolated distro: a network namespace, which lasts
// as long as the distro's processes and the thread.
type netns struct {
	addr   netip.Addr       // invalid in a VM without a network
	thread *nsthread.Thread // a thread in the namespace, and in nothing else of the distro's
	// listeners is how package listeners looks at it.
	listeners *listeners.Netns
}

// openNetns makes the network of an isolated distro, before anything runs in it.
func (d *distro) openNetns() error {
	addr, err := d.takeAddress()
	if err != nil {
		return err
	}
	var namespace *os.File
	thread, err := nsthread.New(func() (err error) {
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
	s := &netns{addr: addr, thread: thread}
	s.listeners = &listeners.Netns{Distro: d.spec.Id, Do: s.do}
	err = d.a.cfg.Network.Attach(namespace, addr)
	if err == nil {
		err = s.do(func() error { return d.a.cfg.Network.SetUpDistro(addr) })
	}
	if err != nil {
		thread.Close()
		d.a.cfg.Network.Detach(addr)
		return fmt.Errorf("network: %w", err)
	}
	d.setNetns(s)
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

// closeNetns removes the distro's network when its processes are gone.
func (d *distro) closeNetns() {
	s := d.ownNetns()
	if s == nil {
		return
	}
	d.setNetns(nil)
	s.thread.Close()
	if err := d.a.cfg.Network.Detach(s.addr); err != nil {
		d.a.log.Warn("remove a distro's network", "distro", d.spec.Name, "err", err)
	}
}

// network returns the distro's own network, nil where it has the VM's or is
// nil itself. The network of an isolated distro that comes or goes is an error.
func (d *distro) network() (*netns, error) {
	if d == nil || !d.spec.Isolated {
		return nil, nil
	}
	if s := d.ownNetns(); s != nil {
		return s, nil
	}
	return nil, guest.NotRunning()
}

// ownNetns returns the network of an isolated distro while it stands.
func (d *distro) ownNetns() *netns {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.netns
}

func (d *distro) setNetns(s *netns) {
	d.mu.Lock()
	d.netns = s
	d.mu.Unlock()
	d.a.mu.Lock()
	d.a.notifyChange()
	d.a.mu.Unlock()
}

// do runs f, which must be quick, on a thread in the namespace.
func (s *netns) do(f func() error) error {
	_, err := inNetns(s, func() (struct{}, error) { return struct{}{}, f() })
	return err
}

// socket makes a socket in the namespace.
func (s *netns) socket(domain, kind, proto int) (int, error) {
	return inNetns(s, func() (int, error) { return unix.Socket(domain, kind, proto) })
}

// inNetns runs f, which must be quick, on a thread in the namespace of s; where s is nil,
// in the VM's.
func inNetns[T any](s *netns, f func() (T, error)) (T, error) {
	if s == nil {
		return f()
	}
	return nsthread.Call(context.Background(), s.thread, f, func(T) {})
}

// namespaces returns the networks of the distros that have their own, and what is
// closed when these may have changed.
func (a *Agent) namespaces() ([]*listeners.Netns, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []*listeners.Netns
	for _, d := range a.distros {
		if s := d.ownNetns(); s != nil {
			all = append(all, s.listeners)
		}
	}
	return all, a.changed
}

// networks is what the host is told of the namespaces.
func (a *Agent) networks() []*guestv1.OwnNetwork {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []*guestv1.OwnNetwork
	for id, d := range a.distros {
		if s := d.ownNetns(); s != nil {
			all = append(all, &guestv1.OwnNetwork{Distro: id, Address: s.address()})
		}
	}
	return all
}

// address is the namespace's as the host is told it; "" for none.
func (s *netns) address() string {
	if s == nil || !s.addr.IsValid() {
		return ""
	}
	return s.addr.String()
}
