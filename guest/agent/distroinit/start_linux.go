package distroinit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/agent/account"
)

// setUpTimeout is how long a distro's init may take to report.
const setUpTimeout = 30 * time.Second

// Start starts the process that becomes a distro's PID 1, in new namespaces, and in the
// control group whose directory is open as groupFD. It passes the function that starts
// the process to in, which calls it on a thread in the distro's network namespace. The
// caller reads the report from status ([AwaitReport]), closes status, and waits for the
// process.
func Start(cfg Config, groupFD int, in func(start func() error) error) (cmd *exec.Cmd, status *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	unix.SetNonblock(fds[0], true) // so that it has deadlines
	ours, theirs := os.NewFile(uintptr(fds[0]), "status"), os.NewFile(uintptr(fds[1]), "status")
	defer theirs.Close()
	cmd = exec.Command("/proc/self/exe")
	cmd.Args = []string{"lsub-init", initArg}
	cmd.Env = []string{"container=lsub", "PATH=" + account.DefaultPath, "TERM=linux"}
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &unix.SysProcAttr{
		Setsid:      true,
		Cloneflags:  unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		UseCgroupFD: true, CgroupFD: groupFD,
	}
	if err := in(cmd.Start); err != nil {
		ours.Close()
		return nil, nil, fmt.Errorf("start its init: %w", err)
	}
	if err := json.NewEncoder(ours).Encode(cfg); err != nil {
		ours.Close()
		cmd.Process.Kill()
		cmd.Wait()
		return nil, nil, err
	}
	return cmd, ours, nil
}

// AwaitReport reads what the new PID 1 reports on status: a [Report], or "error: …",
// which may also follow it.
func AwaitReport(status *os.File) (*Report, error) {
	status.SetReadDeadline(time.Now().Add(setUpTimeout))
	b, err := io.ReadAll(io.LimitReader(status, 256<<10))
	if err != nil {
		return nil, fmt.Errorf("its init does not come up: %w", err)
	}
	return parseReport(string(b))
}

func parseReport(said string) (*Report, error) {
	line, rest, _ := strings.Cut(said, "\n")
	for _, s := range []string{said, rest} {
		if reason, failed := strings.CutPrefix(s, "error: "); failed {
			return nil, errors.New(strings.TrimSpace(reason))
		}
	}
	r := &Report{}
	if err := json.Unmarshal([]byte(line), r); err != nil || rest != "" || r.Init != Systemd && r.Init != Tiny {
		return nil, errors.New("its init died while it was set up")
	}
	return r, nil
}
