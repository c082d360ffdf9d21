package mmdebstrap

import (
	"os"
	"os/exec"
	"syscall"
)

// isolate puts the command into a process group of its own, so that it and its children can
// be stopped together. A terminal's Ctrl-C does not reach them directly. If lsub is killed,
// the command gets a signal. Root's build gets a UTS namespace, so that setupHook cannot
// rename the host. mmdebstrap makes one for other users, who may not rename the host anyway.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUTS
	}
}

// interruptGroup sends the signal of Ctrl-C on a terminal: mmdebstrap handles it, and removes
// its files.
func interruptGroup(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }

// killGroup kills the rest of the group. An error means that there is none.
func killGroup(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
