// Command testguest is PID 1 of the real VMs that the driver tests boot: it
// loads /modules/*.ko in the order of their names and serves the test protocol
// (package protocol). It is built and put into an initramfs by the tests.
//
// Besides what package protocol names, the control port knows:
//
//	panic            crash the kernel
//	write SERIAL N   write N MiB of noise to the start of a disk, past the page cache
//	discard SERIAL   discard the whole disk
//	up ADDRESS       give the first network card an IPv4 address of a /24, and start it
//	udpecho PORT     send back each UDP packet that comes to the port
//	cmdline          the kernel's arguments
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/hypervisor/hvtest/protocol"
	"github.com/lsub/lsub/vsocksecret"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "testguest is PID 1 of a test VM, not a command")
		os.Exit(2)
	}
	secret, err := vsocksecret.Take("/")
	if err == nil {
		err = boot()
	}
	if err != nil {
		fmt.Println("testguest:", err)
	} else if err := protocol.Serve(machine{secret}); err != nil {
		fmt.Println("testguest:", err)
	}
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("testguest: power off:", err)
	}
	select {} // PID 1 may not return
}

func boot() error {
	for dir, fs := range map[string]string{"/dev": "devtmpfs", "/proc": "proc", "/sys": "sysfs"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(fs, dir, fs, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	modules, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	sort.Strings(modules)
	for _, m := range modules {
		err := load(m)
		if strings.HasSuffix(m, "-hv_vmbus.ko") && errors.Is(err, unix.ENODEV) {
			break // it is no VM of Hyper-V, whose modules are the last ones
		}
		if err != nil {
			return fmt.Errorf("load %s: %w", m, err)
		}
	}
	return openConsole()
}

// openConsole makes the console's driver, where it is a module, serve this program's standard
// files.
func openConsole() error {
	cmdline, err := read("/proc/cmdline")
	if err != nil || !strings.Contains(cmdline, "console=hvc0") {
		return err
	}
	fd, err := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/console: %w", err)
	}
	for to := range 3 {
		if err := unix.Dup3(fd, to, 0); err != nil {
			return err
		}
	}
	return nil
}

func load(module string) error {
	f, err := os.Open(module)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// machine is this VM, as package protocol wants to see it.
type machine struct{ secret vsocksecret.Secret }

func (m machine) Listen(port uint32) (net.Listener, error) {
	l, err := vsock.ListenContextID(unix.VMADDR_CID_ANY, port, nil)
	if err != nil {
		return nil, err
	}
	return m.secret.Listener(l), nil
}

func (machine) DialHost(port uint32) (net.Conn, error) {
	for {
		c, err := vsock.Dial(vsock.Host, port, nil)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ECONNRESET) {
			return nil, err
		}
		// Nothing tells a guest that the host has begun to listen.
		time.Sleep(20 * time.Millisecond)
	}
}

func (machine) Console() io.Writer { return os.Stdout }

func (machine) Command(line string) (string, error) { return command(line) }
