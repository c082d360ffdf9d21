package listeners

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// dumpTimeout bounds the wait for the kernel's answer, which it has at once.
const dumpTimeout = 5 * time.Second

// diag asks the kernel for the sockets of one network namespace. It is for one
// goroutine at a time.
type diag struct {
	f   *os.File
	buf []byte
}

// openDiag opens the way to ask for the sockets of the calling thread's network
// namespace. The caller closes it.
func openDiag() (*diag, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("sock_diag: %w", err)
	}
	return &diag{os.NewFile(uintptr(fd), "sock_diag"), make([]byte, 64<<10)}, nil
}

func (d *diag) close() { d.f.Close() }

// dump returns the sockets that listen, of all protocols and families, by
// protocol.
func (d *diag) dump() (tcp, udp []socket, err error) {
	for _, family := range []byte{familyIPv4, familyIPv6} {
		t, err := d.ask(family, protoTCP, 1<<stateListen)
		if err != nil {
			return nil, nil, err
		}
		u, err := d.ask(family, protoUDP, 1<<stateClose|1<<stateEstablished)
		if err != nil {
			return nil, nil, err
		}
		tcp, udp = append(tcp, t...), append(udp, u...)
	}
	return tcp, udp, nil
}

// attempts is how often a dump is tried whose tables change meanwhile, as they
// do again and again only under a flood.
const attempts = 8

func (d *diag) ask(family, proto byte, states uint32) ([]socket, error) {
	for n := 1; ; n++ {
		found, changed, err := d.askOnce(family, proto, states)
		if err != nil || !changed || n == attempts {
			return found, err
		}
	}
}

func (d *diag) askOnce(family, proto byte, states uint32) (all []socket, changed bool, err error) {
	if err := d.f.SetDeadline(time.Now().Add(dumpTimeout)); err != nil {
		return nil, false, err
	}
	if _, err := d.f.Write(appendRequest(nil, family, proto, states)); err != nil {
		return nil, false, fmt.Errorf("sock_diag: %w", err)
	}
	for {
		n, err := d.f.Read(d.buf)
		if err != nil {
			return nil, false, fmt.Errorf("sock_diag: %w", err)
		}
		a, err := decode(d.buf[:n])
		if err != nil {
			return nil, false, err
		}
		all, changed = append(all, a.sockets...), changed || a.changed
		if a.done {
			return all, changed, nil
		}
	}
}
