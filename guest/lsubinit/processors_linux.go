package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// onlineProcessors starts the processors that the kernel has left off, if it boots on one
// (maxcpus=1). It has the kernel patch its code before, while nothing runs beside it.
func onlineProcessors() error {
	files, err := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/online")
	patched := false
	for _, file := range files {
		if on, readErr := os.ReadFile(file); readErr != nil || string(on) == "1\n" {
			err = errors.Join(err, readErr)
			continue
		}
		if !patched {
			err = errors.Join(err, patchKernel())
			patched = true
		}
		err = errors.Join(err, os.WriteFile(file, []byte("1"), 0))
	}
	return err
}

// patchKernel uses what the kernel patches its own code for at the first use, and keeps it
// in use. An emulated processor may run half of a patch that another one writes.
func patchKernel() error {
	// A limit of the processor time of a group.
	const group = "/sys/fs/cgroup/lsub-patched"
	err := os.Mkdir(group, 0o755)
	if err == nil {
		err = os.WriteFile(group+"/cpu.max", []byte("100000 100000"), 0)
	}
	// Times of received packets, which ping asks for. The socket stays open.
	fd, sockErr := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if sockErr == nil {
		sockErr = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMP, 1)
	}
	if err := errors.Join(err, sockErr); err != nil {
		return fmt.Errorf("have the kernel patch itself early: %w", err)
	}
	return nil
}
