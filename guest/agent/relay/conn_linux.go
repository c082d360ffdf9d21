package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is a socket outside a loop. Like a *net.TCPConn it has deadlines and CloseWrite,
// but making it takes a third of the system calls.
type Conn struct{ *os.File }

func newConn(fd int, name string) *Conn { return &Conn{os.NewFile(uintptr(fd), name)} }

// Descriptor returns a descriptor of a connection for a loop, which owns it, and closes c.
func Descriptor(c io.Closer) (fd int, err error) {
	defer c.Close()
	s, ok := c.(syscall.Conn)
	if !ok {
		return -1, fmt.Errorf("a %T is no socket", c)
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return -1, err
	}
	cerr := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(cerr, err); err != nil {
		return -1, err
	}
	return fd, nil
}

// Socket makes a socket as unix.Socket does, in some network namespace.
type Socket func(domain, kind, proto int) (fd int, err error)

// StartTCP starts a connection to an address in the network namespace of socket, without
// waiting. Within one kernel it is connected when StartTCP returns, unless the server is
// very busy: then pending is true.
func StartTCP(socket Socket, addr netip.AddrPort) (fd int, pending bool, err error) {
	family := unix.AF_INET6
	var to unix.Sockaddr = &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
	if addr.Addr().Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	fd, err = socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, false, fmt.Errorf("connect to %s: %w", addr, err)
	}
	// What the host sends is passed on as it comes.
	err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err == nil {
		err = unix.Connect(fd, to)
	}
	if err == unix.EINPROGRESS { // also where the server's answer came within the call
		err = unix.Connect(fd, to)
	}
	switch err {
	case nil:
		return fd, false, nil
	case unix.EALREADY:
		return fd, true, nil
	}
	unix.Close(fd)
	return -1, false, fmt.Errorf("connect to %s: %w", addr, err)
}

// DialTCP connects to an address in the network namespace of socket. ctx bounds the dial.
func DialTCP(ctx context.Context, socket Socket, addr netip.AddrPort) (*Conn, error) {
	fd, pending, err := StartTCP(socket, addr)
	if err != nil {
		return nil, err
	}
	c := newConn(fd, addr.String())
	if pending {
		err = c.await(ctx)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return c, nil
}

// await waits until the connection stands or is refused.
func (c *Conn) await(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && n != 0 {
			err = unix.Errno(n)
		}
		if failed = err; err != nil {
			return true
		}
		_, err = unix.Getpeername(int(fd))
		return err == nil // ENOTCONN: not yet
	})
	if err != nil {
		return err
	}
	return failed
}

// CloseWrite shuts down the writing side.
func (c *Conn) CloseWrite() error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_WR) })
	if cerr != nil {
		return cerr
	}
	return err
}
