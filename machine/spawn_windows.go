package machine

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
)

// spawn runs argv without a console, so that neither Ctrl-C nor the end of the
// terminal reaches it. It reports to ready.
func spawn(argv []string, log, ready *os.File) error {
	h := ready.Fd()
	if err := windows.SetHandleInformation(windows.Handle(h), windows.HANDLE_FLAG_INHERIT, windows.HANDLE_FLAG_INHERIT); err != nil {
		return err
	}
	cmd := exec.Command(argv[0], append(argv[1:len(argv):len(argv)], fmt.Sprintf("--ready-fd=%d", h))...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		CreationFlags:              windows.DETACHED_PROCESS | windows.CREATE_NEW_PROCESS_GROUP,
		AdditionalInheritedHandles: []syscall.Handle{syscall.Handle(h)},
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}
