package mmdebstrap

import (
	"os"
	"os/exec"
	"syscall"
)

// isolate makes the command the head of a process group, so that it and all it
// starts can be stopped together; a terminal's Ctrl-C does not reach them by
// itself. When lsub is killed, the command gets a signal. Root's build gets a
// UTS namespace, so that setupHook cannot rename the host; mmdebstrap makes one
// for other users, who may not rename the host anyway.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUTS
	}
}

// interruptGroup does what Ctrl-C on a terminal would: mmdebstrap is made for
// that, and removes its files.
func interruptGroup(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }

// killGroup ends what is left of the group. An error means that nothing is.
func killGroup(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
