package images

import (
	"os/exec"
	"syscall"
)

// ownGroup makes the command the head of a process group, so that it and all it
// starts can be stopped together; a terminal's Ctrl-C does not reach them by
// itself. Should lsub be killed, the command is told.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// interruptGroup does what Ctrl-C on a terminal would: mmdebstrap is made for
// that, and removes its files.
func interruptGroup(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }

// killGroup ends what is left of the group. An error means that nothing is.
func killGroup(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
