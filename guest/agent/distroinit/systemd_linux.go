package distroinit

import (
	"debug/elf"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// hasSystemd reports whether the distro's init is systemd, and the processor runs it. A
// user-mode emulator lacks system calls that systemd needs (fsconfig, for the credentials of
// services): under qemu-user its journal does not start. Such a distro has the tiny init.
func hasSystemd() bool {
	init, err := filepath.EvalSymlinks("/sbin/init")
	return err == nil && filepath.Base(init) == "systemd" && isNative(init)
}

// nativeMachines are the machines whose programs the processor runs, by GOARCH.
var nativeMachines = map[string][]elf.Machine{
	"amd64": {elf.EM_X86_64, elf.EM_386},
	"arm64": {elf.EM_AARCH64, elf.EM_ARM},
}

// isNative reports whether a program is not for another processor.
func isNative(program string) bool {
	f, err := os.OpenFile(program, os.O_RDONLY|unix.O_NONBLOCK, 0) // it may be a pipe
	if err != nil {
		return false
	}
	defer f.Close()
	e, err := elf.NewFile(f)
	return err != nil || slices.Contains(nativeMachines[runtime.GOARCH], e.Machine) // else it is a script
}
