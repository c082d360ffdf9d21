package kvm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor/kvm/vhostvsock"
	"github.com/lsub/lsub/vsocksecret"
)

// vsockBackend carries the vsock streams of one VM.
type vsockBackend interface {
	Dial(ctx context.Context, port uint32) (net.Conn, error)
	Listen(port uint32) (net.Listener, error)
	// Close ends every stream and listener, and waits for all goroutines.
	Close() error
}

// vhostPath is the device of the kernel's backend.
const vhostPath = "/dev/vhost-vsock"

// openVSock prepares a backend. QEMU inherits file; the caller closes it once QEMU has it.
// cid is 0 for our own backend.
//
// secret is what the kernel's backend says first on each stream that it opens.
func openVSock(want VSock, secret vsocksecret.Secret, log *slog.Logger) (b vsockBackend, file *os.File, cid uint32, err error) {
	// The kernel's has no permissions: every user of this machine may connect to the guest's
	// ports, and take the host's. So it is used only on request, and with a secret.
	if want == VSockKernel {
		f, err := os.OpenFile(vhostPath, os.O_RDWR, 0)
		if err != nil {
			return nil, nil, 0, hint.New(fmt.Errorf("the kernel's vsock cannot be used: %w", err),
				"load it with 'sudo modprobe vhost_vsock' and see that you may open "+vhostPath+", or use lsub's own (vsock: user)")
		}
		cid, err := claimCID(f)
		if err != nil {
			f.Close()
			return nil, nil, 0, err
		}
		return &kernelVSock{cid: cid, secret: secret, listeners: map[*kernelListener]struct{}{}}, f, cid, nil
	}
	conn, file, err := socketPair("vhost-user-vsock", unix.SOCK_STREAM)
	if err != nil {
		return nil, nil, 0, err
	}
	// The guest's address is private here: nobody else can reach it.
	u := &userVSock{Device: vhostvsock.New(vhostvsock.Config{GuestCID: 3, Logger: log})}
	u.wg.Go(func() {
		if err := u.Serve(conn); err != nil {
			log.Error("the vsock device has failed; the VM cannot be reached any more", "err", err)
		}
	})
	return u, file, 0, nil
}

// userVSock is our own backend, which QEMU reaches over vhost-user.
type userVSock struct {
	*vhostvsock.Device
	wg sync.WaitGroup
}

func (u *userVSock) Close() error {
	err := u.Device.Close()
	u.wg.Wait()
	return err
}

// vhostVSockSetGuestCID is _IOW(VHOST_VIRTIO, 0x60, __u64) of linux/vhost.h.
const vhostVSockSetGuestCID = 0x4008AF60

// claimCID gives the device a guest address that no other VM on this host has. QEMU sets the
// same one again on the same device, which changes nothing.
func claimCID(f *os.File) (uint32, error) {
	for range 64 {
		// People choose low numbers by hand.
		cid := 1<<16 + rand.Uint32N(1<<31)
		arg := uint64(cid)
		// The kernel reads the 8 bytes of arg during the call, which keeps it alive.
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), vhostVSockSetGuestCID, uintptr(unsafe.Pointer(&arg)))
		if errno == 0 {
			return cid, nil
		}
		if errno != unix.EADDRINUSE {
			return 0, fmt.Errorf("%s: set the guest's address: %w", vhostPath, errno)
		}
	}
	return 0, fmt.Errorf("%s: no free address for the guest", vhostPath)
}

// kernelVSock is the kernel's backend.
type kernelVSock struct {
	cid       uint32
	secret    vsocksecret.Secret
	mu        sync.Mutex
	closed    bool
	listeners map[*kernelListener]struct{}
}

func (k *kernelVSock) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	for {
		c, err := vsock.DialContext(ctx, k.cid, port, nil)
		switch {
		case err == nil:
			if _, err := c.Write(k.secret); err != nil { // it fits the empty buffer, so it does not wait
				c.Close()
				return nil, err
			}
			return c, nil
		case !errors.Is(err, syscall.ETIMEDOUT) || ctx.Err() != nil:
			return nil, err
		}
		// The kernel gives up after 2 s. A guest that is busy or paused takes longer.
	}
}

func (k *kernelVSock) Listen(port uint32) (net.Listener, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, net.ErrClosed
	}
	l, err := vsock.ListenContextID(vsock.Host, port, nil)
	if errors.Is(err, syscall.EADDRINUSE) {
		// All VMs and programs of the machine share the host's ports.
		return nil, hint.New(err, "another program listens on this vsock port; stop it, or use lsub's own vsock (vsock: user)")
	}
	if err != nil {
		return nil, err
	}
	kl := &kernelListener{Listener: l, owner: k}
	k.listeners[kl] = struct{}{}
	return kl, nil
}

func (k *kernelVSock) Close() error {
	k.mu.Lock()
	k.closed = true
	listeners := k.listeners
	k.listeners = nil
	k.mu.Unlock()
	for l := range listeners {
		l.Listener.Close()
	}
	return nil
}

// kernelListener accepts only streams from this VM's guest. The kernel passes all of a port's
// streams, from every guest and from local programs, to its one listener.
type kernelListener struct {
	*vsock.Listener
	owner *kernelVSock
}

// open reports whether neither the user nor the VM's end has closed the listener.
func (l *kernelListener) open() bool {
	l.owner.mu.Lock()
	defer l.owner.mu.Unlock()
	_, ok := l.owner.listeners[l]
	return ok
}

func (l *kernelListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil && !l.open() {
			return nil, &net.OpError{Op: "accept", Net: "vsock", Addr: l.Addr(), Err: net.ErrClosed}
		}
		if err != nil {
			return nil, err
		}
		if a, ok := c.RemoteAddr().(*vsock.Addr); ok && a.ContextID == l.owner.cid {
			return c, nil
		}
		c.Close()
	}
}

func (l *kernelListener) Close() error {
	l.owner.mu.Lock()
	delete(l.owner.listeners, l)
	l.owner.mu.Unlock()
	return l.Listener.Close()
}
