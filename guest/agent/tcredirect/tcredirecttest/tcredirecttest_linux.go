// Package tcredirecttest makes a network namespace with a card whose other end is
// the test, and with package tcredirect attached to it: what speaks TCP in frames
// meets the kernel's own.
//
//	n := tcredirecttest.New(t)
//	n.Receive(func(parts [][]byte) { … }, func() { … })
//	n.Do(func() { l, err = net.Listen("tcp", "127.0.0.1:80") })
//	n.Send(header, frame)
//
// It needs root; without, the test is skipped.
package tcredirecttest

import (
	"errors"
	"log/slog"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/agent/tcredirect"
)

// Card is what the card is called in the namespace.
const Card = "eth0"

// HeaderLen is the length in bytes of the virtio_net_hdr before each frame.
const HeaderLen = 12

// The card's features, of linux/if_tun.h: it leaves checksums and the division of
// TCP into segments to its other end.
const features = 0x01 | 0x02 | 0x04 // TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6

// mtu is that of the VM's card.
const mtu = 65520

// Namespace is a network namespace with lo and a card.
type Namespace struct {
	Redirect *tcredirect.Redirect // what is attached

	t      testing.TB
	calls  chan func()
	tap    *os.File
	conn   syscall.RawConn
	closed atomic.Bool
}

// New makes a namespace, for as long as the test lasts.
func New(t testing.TB) *Namespace {
	t.Helper()
	n := &Namespace{t: t, calls: make(chan func())}
	made := make(chan error)
	go n.run(made)
	if err := <-made; err != nil {
		t.Skipf("no network namespace can be made here: %v", err)
	}
	t.Cleanup(func() { close(n.calls) })
	var err error
	n.Do(func() { err = n.plug() })
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		t.Skipf("no tap device can be made here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.closed.Store(true)
		n.tap.Close()
	})
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	n.Do(func() { n.Redirect, err = tcredirect.Attach(Card, log) })
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, os.ErrPermission) {
		t.Skipf("this kernel does not take the programs: %v", err)
	}
	if err != nil {
		t.Fatalf("attach: %+v", err)
	}
	t.Cleanup(func() { n.Redirect.Close() })
	return n
}

// run is the thread in the namespace. It ends with its goroutine, for it
// stays locked.
func (n *Namespace) run(made chan<- error) {
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_NEWNET)
	made <- err
	if err != nil {
		return
	}
	for f := range n.calls {
		f()
	}
}

// Do runs a function on a thread in the namespace, and waits for it. Sockets that
// are made there stay there. The function must not end the test (Fatal).
func (n *Namespace) Do(f func()) {
	done := make(chan struct{})
	n.calls <- func() {
		defer close(done)
		f()
	}
	<-done
}

// plug makes the card, and brings it up, and lo.
func (n *Namespace) plug() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	if err := configure(fd); err != nil {
		unix.Close(fd)
		return err
	}
	n.tap = os.NewFile(uintptr(fd), "tap")
	n.conn, err = n.tap.SyscallConn()
	return err
}

func configure(fd int) error {
	ifr, err := unix.NewIfreq(Card)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return err
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, HeaderLen); err != nil {
		return err
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, features); err != nil {
		return err
	}
	// Else the kernel looks for routers by itself.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+Card+"/disable_ipv6", []byte("1"), 0); err != nil {
		return err
	}
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(sock)
	ifr.SetUint32(mtu)
	if err := unix.IoctlIfreq(sock, unix.SIOCSIFMTU, ifr); err != nil {
		return err
	}
	for _, name := range []string{"lo", Card} {
		if ifr, err = unix.NewIfreq(name); err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		if err := unix.IoctlIfreq(sock, unix.SIOCSIFFLAGS, ifr); err != nil {
			return err
		}
	}
	return nil
}

// Send puts a frame into the namespace: its header and the Ethernet frame, which
// the parts make up together. A frame that the kernel does not take at all fails the
// test. It is safe for concurrent use. After the test it returns false.
func (n *Namespace) Send(parts ...[]byte) bool {
	var err error
	if n.conn.Control(func(fd uintptr) { _, err = unix.Writev(int(fd), parts) }) != nil {
		return false
	}
	if err != nil && !n.closed.Load() {
		n.t.Errorf("send a frame: %v", err)
	}
	return err == nil
}

// Receive has a function called with each frame that comes from the namespace,
// with its header, and another whenever there is no more for now. The parts are
// there during the call alone. It returns at once; both functions are called by
// one goroutine, until the test ends. Call it once.
func (n *Namespace) Receive(f func(parts [][]byte), flush func()) {
	ended := make(chan struct{})
	n.t.Cleanup(func() { // before those of New
		n.closed.Store(true)
		n.tap.Close()
		<-ended
	})
	buf := make([]byte, HeaderLen+1<<17)
	parts := make([][]byte, 1)
	go func() {
		defer close(ended)
		err := n.conn.Read(func(fd uintptr) bool {
			for {
				size, err := unix.Read(int(fd), buf)
				if err == unix.EAGAIN {
					flush()
					return false // until there is more
				}
				if err == unix.EINTR {
					continue
				}
				if err != nil {
					if !n.closed.Load() {
						n.t.Errorf("receive frames: %v", err)
					}
					return true
				}
				parts[0] = buf[:size]
				f(parts)
			}
		})
		if err != nil && !n.closed.Load() {
			n.t.Errorf("receive frames: %v", err)
		}
	}()
}
