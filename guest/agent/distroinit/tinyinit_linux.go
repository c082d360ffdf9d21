package distroinit

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/agent/account"
	"github.com/lsub/lsub/guest/agent/cgroup"
	"github.com/lsub/lsub/guest/agent/distrofile"
)

// fstabTimeout is how long the mounts of /etc/fstab may take before a tiny init
// goes on without them.
const fstabTimeout = 10 * time.Second

// mountFSTab mounts what /etc/fstab lists, with the distro's own mount, and
// returns what went wrong.
func mountFSTab() (warnings []string) {
	b, err := distrofile.Read("/etc/fstab")
	if err != nil || !listsMounts(string(b)) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), fstabTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "mount", "-a")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("not done within %s", fstabTimeout)
	case err == nil:
		return nil
	}
	const most = 500
	said := string(bytes.ToValidUTF8(out[:min(len(out), most)], []byte("?")))
	return []string{strings.Join(strings.Fields(fmt.Sprintf("/etc/fstab: mount -a: %v: %s", err, said)), " ")}
}

// listsMounts tells whether an fstab has more than comments.
func listsMounts(fstab string) bool {
	for line := range strings.Lines(fstab) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			return true
		}
	}
	return false
}

// endGrace is how long processes have to end when a tiny distro shuts down.
const endGrace = 5 * time.Second

// tinyInit is the PID 1 of a distro without systemd. It runs command, the distro's own,
// beside itself with env, and reaps the processes that lost their parent. A request to
// shut down, such as "poweroff" of busybox sends, it passes on to all
// processes, and ends when they have, or after a while; its namespaces and all
// that is left in them end with it. SIGHUP it passes on.
func tinyInit(command string, env []string) {
	os.WriteFile("/proc/self/comm", []byte("lsub-init"), 0)
	sigs := make(chan os.Signal, 16)
	signal.Notify(sigs, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2)
	if command != "" {
		if err := startBootCommand(command, env); err != nil {
			fmt.Fprintln(os.Stderr, "lsub: [boot] command:", err)
		}
	}
	// Last, because what it starts would have it too.
	os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0) // without it, the distro would be gone
	var end, look <-chan time.Time
	for {
		select {
		case s := <-sigs:
			switch s {
			case unix.SIGCHLD:
				reap()
			case unix.SIGHUP:
				unix.Kill(-1, unix.SIGHUP) // all but ourselves
			default:
				os.Remove(ReadyDir + "/" + ReadyFile) // commands that come now wait for the next start
				unix.Kill(-1, unix.SIGTERM)
				if end == nil {
					// The commands are no children of ours, so no signal tells of their end.
					end, look = time.After(endGrace), time.Tick(20*time.Millisecond)
				}
			}
		case <-look:
			reap()
			if unix.Kill(-1, 0) == unix.ESRCH { // nobody is left
				return
			}
		case <-end:
			return
		}
	}
}

func reap() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if pid <= 0 && err != unix.EINTR {
			return
		}
	}
}

// startBootCommand starts the distro's own command where the commands of users
// are, so that it is asked to end as they are.
func startBootCommand(command string, env []string) error {
	group := filepath.Join("/sys/fs/cgroup", cgroup.SessionsGroup)
	if err := os.MkdirAll(group, 0o755); err != nil {
		return err
	}
	dir, err := os.Open(group)
	if err != nil {
		return err
	}
	defer dir.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	p, err := os.StartProcess("/bin/sh", []string{"sh", "-c", command}, &os.ProcAttr{
		Dir: "/", Env: append([]string{"PATH=" + account.DefaultPath, "HOME=/root", "USER=root", "LOGNAME=root"}, env...),
		Files: []*os.File{null, os.Stdout, os.Stderr},
		Sys:   &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(dir.Fd())},
	})
	if err != nil {
		return err
	}
	return p.Release()
}
