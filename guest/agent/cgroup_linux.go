package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupRoot holds the control groups of all distros.
const cgroupRoot = "/sys/fs/cgroup/distros"

// sessionsGroup is where a distro's commands are. They cannot be in the root
// of its groups, which has controllers switched on by systemd, and must be out
// of the way of systemd's own.
const sessionsGroup = ".lsub"

// cgroup is the control group of a distro, whose own view has it as its root.
type cgroup struct {
	path string
	dir  *os.File
}

func newCgroup(id string) (*cgroup, error) {
	c := &cgroup{path: filepath.Join(cgroupRoot, id)}
	if err := os.MkdirAll(c.path, 0o755); err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	var err error
	if c.dir, err = os.Open(c.path); err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	return c, nil
}

// sessions opens the group of the distro's commands. The caller closes it.
func (c *cgroup) sessions() (*os.File, error) {
	p := filepath.Join(c.path, sessionsGroup)
	f, err := os.Open(p)
	if os.IsNotExist(err) {
		if err = os.Mkdir(p, 0o755); err == nil || os.IsExist(err) {
			f, err = os.Open(p)
		}
	}
	return f, err
}

// kill ends every process of the distro.
func (c *cgroup) kill() { os.WriteFile(filepath.Join(c.path, "cgroup.kill"), []byte("1"), 0) }

func (c *cgroup) killSessions() {
	os.WriteFile(filepath.Join(c.path, sessionsGroup, "cgroup.kill"), []byte("1"), 0)
}

// signalSessions sends signals to every process of the distro's commands.
func (c *cgroup) signalSessions(sigs ...unix.Signal) {
	f, err := os.Open(filepath.Join(c.path, sessionsGroup, "cgroup.procs"))
	if err != nil {
		return // there are none
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if pid, err := strconv.Atoi(s.Text()); err == nil && pid > 1 {
			for _, sig := range sigs {
				unix.Kill(pid, sig)
			}
		}
	}
}

// awaitNoSessions waits until no process of a command is left.
func (c *cgroup) awaitNoSessions(ctx context.Context) error {
	return c.awaitEmpty(ctx, filepath.Join(c.path, sessionsGroup))
}

// awaitEmpty waits until no process is left in a group; one that does not
// exist is empty.
func (c *cgroup) awaitEmpty(ctx context.Context, group string) error {
	events := filepath.Join(group, "cgroup.events")
	f, err := os.Open(events)
	if err != nil {
		return nil
	}
	defer f.Close()
	for {
		b := make([]byte, 256)
		n, err := f.ReadAt(b, 0)
		if n == 0 && err != nil || strings.Contains(string(b[:n]), "populated 0") {
			return nil
		}
		// The kernel flags a change of the file as an exceptional condition.
		timeout := 1000
		if dl, ok := ctx.Deadline(); ok {
			timeout = int(max(0, min(time.Until(dl), time.Second)).Milliseconds()) + 1
		}
		unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}, timeout)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// remove deletes the group and those below it, waiting for what was killed to
// be gone.
func (c *cgroup) remove() error {
	defer c.dir.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.awaitEmpty(ctx, c.path); err != nil {
		return fmt.Errorf("processes are left in %s: %w", c.path, err)
	}
	return removeGroups(c.path)
}

// removeGroups deletes groups from the leaves up; their files are the kernel's.
func removeGroups(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroups(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return unix.Rmdir(dir)
}
