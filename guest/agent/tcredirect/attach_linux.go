package tcredirect

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// Redirect leads TCP between a card and the loopback of its network namespace.
type Redirect struct {
	closers []func() error
	guard   *guard
}

// Attach installs the redirect in the network namespace of the calling thread, for the
// card of that name. The caller closes it. The namespace's settings for lo, and
// its reserved ports, stay as Attach has made them.
func Attach(card string, log *slog.Logger) (_ *Redirect, err error) {
	eth, err := net.InterfaceByName(card)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", card, err)
	}
	if err := settings(); err != nil {
		return nil, err
	}
	warmUp()
	d := &Redirect{}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if err := d.attach(eth.Index, ebpf.AttachTCXIngress, fromCard()); err != nil {
		return nil, err
	}
	if err := d.attach(loIndex, ebpf.AttachTCXEgress, toCard(eth.Index)); err != nil {
		return nil, err
	}
	if d.guard, err = openGuard(log); err != nil {
		return nil, err
	}
	return d, nil
}

// Close removes the redirect. Connections that use it are lost.
func (d *Redirect) Close() error {
	if d.guard != nil {
		d.guard.close()
		d.guard = nil
	}
	var first error
	for i := len(d.closers) - 1; i >= 0; i-- {
		if err := d.closers[i](); err != nil && first == nil {
			first = err
		}
	}
	d.closers = nil
	return first
}

func (d *Redirect) attach(index int, at ebpf.AttachType, code asm.Instructions) error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "lsub_loopback", Type: ebpf.SchedCLS, AttachType: at, Instructions: code, License: "GPL",
	})
	if err != nil {
		return fmt.Errorf("load the program for %v: %w", at, err)
	}
	defer p.Close() // the link holds it
	l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: p, Attach: at})
	if err != nil {
		return fmt.Errorf("attach the program for %v: %w", at, err)
	}
	d.closers = append(d.closers, l.Close)
	return nil
}

// warmUp has a connection pass lo in each family. The kernel makes the secrets of
// its tables for the first one, and then changes its code so that it does not ask
// for them again. With software emulation a processor that runs this code at that
// moment may run half a change, and the kernel dies (seen: "Oops: int3" in inet6_ehashfn, under
// a burst of frames). Now, nothing comes by the card yet.
func warmUp() {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			continue // a family that there is not
		}
		if c, err := net.DialTimeout("tcp", l.Addr().String(), warmUpTimeout); err == nil {
			c.Close()
		}
		l.Close()
	}
}

// warmUpTimeout bounds what takes no time, unless a firewall is in the way.
const warmUpTimeout = 100 * time.Millisecond

// settings has lo take packets with loopback addresses that do not come from
// this kernel's own sockets, and keeps the supervisor's ports for it.
func settings() error {
	for _, name := range []string{"route_localnet", "accept_local"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/lo/"+name, []byte("1"), 0); err != nil {
			return err
		}
	}
	const reserved = "/proc/sys/net/ipv4/ip_local_reserved_ports"
	had, err := os.ReadFile(reserved)
	if err != nil {
		return err
	}
	return os.WriteFile(reserved, []byte(reserve(string(had))), 0)
}
