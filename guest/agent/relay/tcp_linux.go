package relay

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// TCPConn is a connection within the VM. It is what a *net.TCPConn is, made with
// a third of the system calls: under software emulation, these are what a
// connection costs.
type TCPConn struct{ *os.File }

// Socket makes a socket as unix.Socket does, in a network namespace.
type Socket func(domain, kind, proto int) (fd int, err error)

// DialTCP connects to an address of the network namespace that socket is of. ctx
// bounds the connecting.
func DialTCP(ctx context.Context, socket Socket, addr netip.AddrPort) (*TCPConn, error) {
	family := unix.AF_INET6
	var to unix.Sockaddr = &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
	if addr.Addr().Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	fd, err := socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	// What the host sends is passed on as it comes.
	err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err == nil {
		err = unix.Connect(fd, to)
	}
	if err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	c := &TCPConn{os.NewFile(uintptr(fd), addr.String())}
	if err == unix.EINPROGRESS { // within one kernel, only where the server is very busy
		err = c.await(ctx)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return c, nil
}

// await waits until the connection stands or is refused.
func (c *TCPConn) await(ctx context.Context) error {
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

// CloseWrite ends the connection's direction to the server.
func (c *TCPConn) CloseWrite() error {
	return c.control(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
}

// SetLinger is that of a *net.TCPConn; with 0, Close resets the connection.
func (c *TCPConn) SetLinger(sec int) error {
	return c.control(func(fd int) error {
		return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: int32(sec)})
	})
}

func (c *TCPConn) control(f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) { err = f(int(fd)) })
	if cerr != nil {
		return cerr
	}
	return err
}
