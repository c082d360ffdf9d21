package sharemount

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	headerLen = 16 // of an answer
	// maxMessage is the largest request or answer: 1 MiB of data, and room for headers.
	maxMessage = 1<<20 + 4096
)

// Mounted is a directory that a stream serves.
type Mounted struct {
	dev  int // FUSE's device, non-blocking
	conn int // the stream, blocking
	wake int // an eventfd that ends the wait for requests

	Root *os.File // of a mount that can be written, for Echo; the caller closes it
}

// Stream mounts the directory that the other end of conn serves. No request goes out before
// Serve is called. It does not use conn any more when it returns: it has a copy of its
// descriptor.
func Stream(conn net.Conn, target string, readOnly bool) (*Mounted, error) {
	at, err := blockingCopy(conn)
	if err != nil {
		return nil, err
	}
	m := &Mounted{dev: -1, conn: at, wake: -1}
	if m.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		m.close()
		return nil, err
	}
	if m.dev, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
		m.close()
		return nil, fmt.Errorf("open /dev/fuse: %w", err)
	}
	opts := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other,max_read=%d", m.dev, 1<<20)
	m.Root, err = mountTwice(target, readOnly, func(at string) error { return unix.Mount("lsub", at, "fuse.lsub", flags, opts) })
	if err != nil {
		m.close()
		return nil, fmt.Errorf("mount %s: %w", target, err)
	}
	return m, nil
}

func (m *Mounted) close() {
	for _, fd := range []int{m.dev, m.conn, m.wake} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// blockingCopy returns a blocking descriptor of a connection. Nobody else may use conn.
func blockingCopy(conn net.Conn) (int, error) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return -1, errors.New("the stream has no descriptor")
	}
	rc, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	cerr := rc.Control(func(from uintptr) {
		if fd, err = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			err = unix.SetNonblock(fd, false)
		}
	})
	return fd, errors.Join(cerr, err)
}

// Serve carries requests and answers until the stream ends or the directory is unmounted.
// After that each access to it is an error.
//
// Two threads do nothing else, with blocking system calls. Go's poller would double the time
// of a round trip in an emulated VM.
func (m *Mounted) Serve() {
	var wg sync.WaitGroup
	for _, carry := range []func(){m.toHost, m.toKernel} {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			carry()
			// Both end together.
			_ = unix.Shutdown(m.conn, unix.SHUT_RDWR)
			_, _ = unix.Write(m.wake, binary.NativeEndian.AppendUint64(nil, 1))
		})
	}
	wg.Wait()
	m.close() // with the device's last descriptor, the kernel fails all requests
}

// toHost carries requests. Each read is one.
func (m *Mounted) toHost() {
	buf := make([]byte, maxMessage)
	ready := []unix.PollFd{{Fd: int32(m.dev), Events: unix.POLLIN}, {Fd: int32(m.wake), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(ready, -1); err != nil && err != unix.EINTR {
			return
		}
		if ready[1].Revents != 0 {
			return
		}
		n, err := unix.Read(m.dev, buf)
		switch err {
		case nil:
			if !writeAll(m.conn, buf[:n]) {
				return
			}
		case unix.EAGAIN, unix.EINTR, unix.ENOENT: // the request was interrupted before it was read
		default: // ENODEV: unmounted
			return
		}
	}
}

func writeAll(fd int, p []byte) bool {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if err != nil && err != unix.EINTR {
			return false
		}
		p = p[max(n, 0):]
	}
	return true
}

// toKernel carries answers, each with one write.
func (m *Mounted) toKernel() {
	buf, have := make([]byte, 2*maxMessage), 0
	for {
		n, err := unix.Read(m.conn, buf[have:])
		if err == unix.EINTR {
			continue
		}
		if n <= 0 {
			return
		}
		have += n
		rest := buf[:have]
		for len(rest) >= headerLen {
			size := binary.LittleEndian.Uint32(rest)
			if size < headerLen || size > maxMessage {
				return
			}
			if len(rest) < int(size) {
				break
			}
			// ENOENT: nobody waits for it any more. Other errors are of this answer, too.
			if _, err := unix.Write(m.dev, rest[:size]); err == unix.ENODEV {
				return
			}
			rest = rest[size:]
		}
		have = copy(buf, rest)
	}
}
