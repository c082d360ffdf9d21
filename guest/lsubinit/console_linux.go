package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// openConsole makes a virtio console usable, if it is the kernel's. Its driver is a module, so
// the kernel could not open it for this program: the standard files lead nowhere until now. The
// kernel then prints all that it has said before.
func openConsole(cmdline string, order moduleOrder) error {
	if !strings.Contains(cmdline, "console=hvc0") {
		return nil
	}
	if err := order.load("console"); err != nil {
		return err
	}
	var fd int
	var err error
	for range 100 {
		fd, err = unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err == nil {
			break
		}
		// Some hypervisors tell of the console's port only a moment after its driver is there,
		// and nothing tells of that.
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("open /dev/console: %w", err)
	}
	defer unix.Close(fd)
	for _, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		if err := unix.Dup3(fd, int(f.Fd()), 0); err != nil {
			return err
		}
	}
	return nil
}
