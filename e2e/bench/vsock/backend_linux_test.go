package vsock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/hypervisor/hvtest/protocol"
	"github.com/lsub/lsub/hypervisor/kvm/vhostvsock"
)

// bootTimeout bounds a boot, and each dial.
const bootTimeout = time.Minute

// ours is package vhostvsock.
type ours struct{ dev *vhostvsock.Device }

// startOurs serves a device on the socket at path, and returns once QEMU can connect.
func startOurs(b *testing.B, path string) (dialer, net.Listener) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		b.Fatal(err)
	}
	dev := vhostvsock.New(vhostvsock.Config{GuestCID: 3})
	ready, err := dev.Listen(protocol.ReadyPort)
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		conn, err := l.AcceptUnix()
		if err == nil {
			err = dev.Serve(conn)
		}
		served <- err
	}()
	b.Cleanup(func() {
		l.Close()
		dev.Close()
		if err := <-served; err != nil && !errors.Is(err, net.ErrClosed) {
			b.Error("our device:", err)
		}
	})
	return ours{dev}, ready
}

func (o ours) dial(port uint32) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
	defer cancel()
	return o.dev.Dial(ctx, port)
}

// peer is Debian's vhost-device-vsock, which speaks vsock on a Unix socket, as
// Firecracker does.
type peer struct{ path string }

// startPeer runs vhost-device-vsock with the libraries of its own directory.
func startPeer(b *testing.B, path string) (dialer, net.Listener) {
	libs := filepath.Join(*peerRoot, "usr/lib", map[string]string{"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}[unameMachine()])
	loaders, err := filepath.Glob(filepath.Join(libs, "ld-linux-*.so.*"))
	if err != nil || len(loaders) == 0 {
		b.Fatalf("no loader in %s: %v", libs, err)
	}
	p := peer{filepath.Join(filepath.Dir(path), "peer")}
	ready, err := net.Listen("unix", fmt.Sprintf("%s_%d", p.path, protocol.ReadyPort))
	if err != nil {
		b.Fatal(err)
	}
	run(b, "vhost-device-vsock", loaders[0], "--library-path", libs, filepath.Join(*peerRoot, "usr/bin/vhost-device-vsock"),
		"--guest-cid", "3", "--socket", path, "--uds-path", p.path)
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) { // it does not tell when it listens
		if _, err := os.Stat(path); err == nil {
			return p, ready
		}
		if time.Since(begin) > bootTimeout {
			b.Fatal("vhost-device-vsock makes no socket")
		}
	}
}

func unameMachine() string {
	var u unix.Utsname
	unix.Uname(&u)
	return unix.ByteSliceToString(u.Machine[:])
}

func (p peer) dial(port uint32) (net.Conn, error) {
	c, err := net.Dial("unix", p.path)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(bootTimeout))
	_, err = fmt.Fprintf(c, "CONNECT %d\n", port)
	var answer strings.Builder
	for buf := make([]byte, 1); err == nil && buf[0] != '\n'; answer.Write(buf) {
		_, err = c.Read(buf) // one byte at a time: what follows is the stream's
	}
	if err == nil && !strings.HasPrefix(answer.String(), "OK ") {
		err = fmt.Errorf("vhost-device-vsock answers %q", answer.String())
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	c.SetDeadline(time.Time{})
	return c, nil
}

// socketPair is the host's own: its guest is goroutines of this process.
type socketPair struct{ ports map[uint32]chan net.Conn }

func startSocketPair() socketPair {
	s := socketPair{map[uint32]chan net.Conn{}}
	for _, port := range []uint32{protocol.EchoPort, protocol.SinkPort, protocol.SourcePort, protocol.ControlPort} {
		s.ports[port] = make(chan net.Conn)
	}
	go protocol.Serve(s) // as long as the process
	return s
}

func (s socketPair) dial(port uint32) (net.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		ends[i], err = net.FileConn(f)
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	s.ports[port] <- ends[1]
	return ends[0], nil
}

// Listen makes a socketPair a [protocol.Machine].
func (s socketPair) Listen(port uint32) (net.Listener, error) {
	return pairListener{s.ports[port]}, nil
}

// DialHost is not served.
func (s socketPair) DialHost(uint32) (net.Conn, error) { return nil, errors.ErrUnsupported }

// Console is nowhere.
func (s socketPair) Console() io.Writer { return io.Discard }

// Command knows none.
func (s socketPair) Command(string) (string, error) { return "", errors.ErrUnsupported }

// pairListener accepts what dial has made.
type pairListener struct{ conns chan net.Conn }

func (l pairListener) Accept() (net.Conn, error) { return <-l.conns, nil }
func (l pairListener) Close() error              { return nil }
func (l pairListener) Addr() net.Addr            { return &net.UnixAddr{} }
