//go:build unix

package guesttest

import (
	"os/exec"
	"syscall"
)

// ownGroup gives a command a process group of its own, as the agent does.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

func signalGroup(cmd *exec.Cmd, n int) { syscall.Kill(-cmd.Process.Pid, syscall.Signal(n)) }

// signalOf is the signal that ended a command, 0 for none.
func signalOf(exit *exec.ExitError) int {
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return int(ws.Signal())
	}
	return 0
}
