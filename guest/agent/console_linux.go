package agent

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// consoleTail is how much of what a distro's init says is kept, in bytes.
const consoleTail = 16 << 10

// console is the pseudo-terminal that a distro has as /dev/console.
type console struct {
	path   string // of the terminal's end, in the VM
	master *os.File
	slave  *os.File // held open, so that the master never reads an end of file
	done   chan struct{}

	mu   sync.Mutex
	said []byte
}

func openConsole() (*console, error) {
	master, slave, path, err := openPTY("/dev/ptmx")
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	c := &console{path: path, master: master, slave: slave, done: make(chan struct{})}
	go c.read()
	return c, nil
}

func (c *console) read() {
	defer close(c.done)
	buf := make([]byte, 4096)
	for {
		n, err := c.master.Read(buf)
		if err != nil {
			return
		}
		c.mu.Lock()
		c.said = append(c.said, buf[:n]...)
		if over := len(c.said) - consoleTail; over > 0 {
			c.said = append(c.said[:0], c.said[over:]...)
		}
		c.mu.Unlock()
	}
}

// tail returns the last lines that the init wrote.
func (c *console) tail() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(c.said), "\r", "")), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

func (c *console) close() {
	c.master.Close()
	c.slave.Close()
	<-c.done
}

// openPTY opens a pseudo-terminal by its multiplexer, and returns both ends
// and the path of the terminal's.
func openPTY(ptmx string) (master, slave *os.File, path string, err error) {
	fd, err := unix.Open(ptmx, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, "", fmt.Errorf("open %s: %w", ptmx, err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	master = os.NewFile(uintptr(fd), ptmx)
	if err == nil {
		slave, err = openPeer(master, 0)
	}
	if err != nil {
		master.Close()
		return nil, nil, "", fmt.Errorf("open a terminal: %w", err)
	}
	return master, slave, fmt.Sprintf("/dev/pts/%d", n), nil
}

// openPeer opens the terminal's end of a pseudo-terminal. Not by its path: that would be
// looked up in the caller's mounts.
func openPeer(master *os.File, flags int) (*os.File, error) {
	rc, err := master.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd uintptr
	var errno unix.Errno
	rc.Control(func(m uintptr) {
		fd, _, errno = unix.Syscall(unix.SYS_IOCTL, m, unix.TIOCGPTPEER, uintptr(flags|unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC))
	})
	if errno != 0 {
		return nil, errno
	}
	return os.NewFile(fd, "a terminal"), nil
}
