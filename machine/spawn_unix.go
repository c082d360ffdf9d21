//go:build unix

package machine

import (
	"os"
	"os/exec"
	"syscall"
)

// spawn runs argv in a session of its own, so that neither Ctrl-C nor the end
// of the terminal reaches it. It reports to ready.
func spawn(argv []string, log, ready *os.File) error {
	cmd := exec.Command(argv[0], append(argv[1:len(argv):len(argv)], "--ready-fd=3")...)
	cmd.Dir = "/" // it must keep nobody from unmounting where the user is now
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{ready}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}
