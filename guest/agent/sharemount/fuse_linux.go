package sharemount

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// flags of all mounts: what the host's user may make there gives nobody rights in the guest.
const flags = unix.MS_NOSUID | unix.MS_NODEV

const (
	headerLen = 16 // of an answer
	// maxMessage is the largest request or answer: 1 MiB of data, and room for headers.
	maxMessage = 1<<20 + 4096
)

// Stream mounts the directory that the other end of conn serves. The mount is of no use any
//
// Stream returns when the directory is mounted. done is closed when conn has ended.
func Stream(conn io.ReadWriteCloser, target string, readOnly bool) (done <-chan struct{}, err error) {
	// Not by os.OpenFile: its poller asks the device, which answers with an error before it
	// is mounted.
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/fuse: %w", err)
	}
	opts := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other,max_read=%d", fd, 1<<20)
	if err := unix.Mount("lsub", target, "fuse.lsub", mountFlags(readOnly), opts); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("mount %s: %w", target, err)
	}
	dev := os.NewFile(uintptr(fd), "/dev/fuse")
	ended := make(chan struct{})
	var once sync.Once
	end := func() { // the connection to the kernel ends with its last descriptor
		once.Do(func() {
			conn.Close()
			dev.Close()
			close(ended)
		})
	}
	go func() {
		defer end()
		_ = toHost(conn, dev)
	}()
	go func() {
		defer end()
		_ = toKernel(dev, conn)
	}()
	return ended, nil
}

func mountFlags(readOnly bool) uintptr {
	if readOnly {
		return flags | unix.MS_RDONLY
	}
	return flags
}

// toHost carries requests. Each read is one.
func toHost(to io.Writer, dev io.Reader) error {
	buf := make([]byte, maxMessage)
	for {
		n, err := dev.Read(buf)
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINTR): // the request was interrupted before it was read
			continue
		case err != nil: // ENODEV: unmounted
			return err
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return err
		}
	}
}

// toKernel carries answers, each with one write.
func toKernel(dev io.Writer, from io.Reader) error {
	buf := make([]byte, maxMessage)
	for {
		if _, err := io.ReadFull(from, buf[:headerLen]); err != nil {
			return err
		}
		n := binary.LittleEndian.Uint32(buf)
		if n < headerLen || n > maxMessage {
			return fmt.Errorf("an answer of %d bytes", n)
		}
		if _, err := io.ReadFull(from, buf[headerLen:n]); err != nil {
			return err
		}
		// ENOENT: nobody waits for it any more. Other errors are of this answer, too.
		if _, err := dev.Write(buf[:n]); errors.Is(err, unix.ENODEV) || errors.Is(err, os.ErrClosed) {
			return err
		}
	}
}
