package vhostvsock_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/lsub/lsub/hypervisor/kvm/vhostvsock"
	"golang.org/x/sys/unix"
)

// A device whose front-end goes away before a guest comes up. A real program gives its end of
// the pair to QEMU, as the child's descriptor 3.
func Example() {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	qemu := os.NewFile(uintptr(fds[1]), "qemu") // exec.Cmd.ExtraFiles
	ours := os.NewFile(uintptr(fds[0]), "vhost-user")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		fmt.Println(err)
		return
	}

	dev := vhostvsock.New(vhostvsock.Config{GuestCID: 3})
	defer dev.Close()
	served := make(chan error, 1)
	go func() { served <- dev.Serve(conn.(*net.UnixConn)) }()

	l, err := dev.Listen(1025) // the guest connects to CID 2, port 1025
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("listening at", l.Addr())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err = dev.Dial(ctx, 1024) // waits for the guest's driver
	fmt.Println("no guest in time:", errors.Is(err, context.DeadlineExceeded))

	qemu.Close()
	fmt.Println("served:", <-served)
	_, err = l.Accept()
	fmt.Println("device gone:", errors.Is(err, net.ErrClosed))
	// Output:
	// listening at 2:1025
	// no guest in time: true
	// served: <nil>
	// device gone: true
}
