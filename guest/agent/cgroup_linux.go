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

	"github.com/lsub/lsub/guest/agent/procfs"
	"github.com/lsub/lsub/guest/guestv1"
)

// cgroupRoot holds the control groups of all distros.
const cgroupRoot = "/sys/fs/cgroup/distros"

// sessionsGroup is where a distro's commands are. They cannot be in the root
// of its groups, which has controllers switched on by systemd, and must be out
// of the way of systemd's own.
const sessionsGroup = ".lsub"

// insideGroup is the root of what a distro sees of its groups. The limits of a distro
// are set one above it, where the distro cannot lift them.
const insideGroup = "inside"

// cgroup is the control group of a distro.
type cgroup struct {
	path   string   // holds the distro's limits
	inside string   // the root that the distro sees
	dir    *os.File // of inside
}

func newCgroup(id string, limits *guestv1.Limits) (*cgroup, error) {
	c := &cgroup{path: filepath.Join(cgroupRoot, id)}
	c.inside = filepath.Join(c.path, insideGroup)
	if err := os.MkdirAll(c.inside, 0o755); err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	if err := DelegateControllers(c.path); err != nil {
		return nil, err
	}
	if err := c.limit(limits); err != nil {
		return nil, err
	}
	var err error
	if c.dir, err = os.Open(c.inside); err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	return c, nil
}

// DelegateControllers lets the groups below a group have limits of every kind
// that the kernel has.
func DelegateControllers(group string) error {
	b, err := os.ReadFile(filepath.Join(group, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	for _, name := range strings.Fields(string(b)) {
		if err := os.WriteFile(filepath.Join(group, "cgroup.subtree_control"), []byte("+"+name), 0); err != nil {
			return fmt.Errorf("cgroup controller %s: %w", name, err)
		}
	}
	return nil
}

// sessions opens the group of the distro's commands. The caller closes it. It
// works beneath the open directory, because the namespace thread, which calls it, sees
// other mounts.
func (c *cgroup) sessions() (*os.File, error) {
	at := int(c.dir.Fd())
	fd, err := unix.Openat(at, sessionsGroup, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		if err = unix.Mkdirat(at, sessionsGroup, 0o755); err == nil || err == unix.EEXIST {
			fd, err = unix.Openat(at, sessionsGroup, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cgroup of the commands: %w", err)
	}
	return os.NewFile(uintptr(fd), sessionsGroup), nil
}

// kill ends every process of the distro.
func (c *cgroup) kill() { os.WriteFile(filepath.Join(c.path, "cgroup.kill"), []byte("1"), 0) }

// freeze stops every process of the distro where it stands, and returns when
// they do.
func (c *cgroup) freeze(timeout time.Duration) error {
	if err := os.WriteFile(filepath.Join(c.path, "cgroup.freeze"), []byte("1"), 0); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return awaitEvent(ctx, c.path, "frozen 1")
}

// thaw lets them go on.
func (c *cgroup) thaw() error {
	return os.WriteFile(filepath.Join(c.path, "cgroup.freeze"), []byte("0"), 0)
}

func (c *cgroup) killSessions() {
	os.WriteFile(filepath.Join(c.inside, sessionsGroup, "cgroup.kill"), []byte("1"), 0)
}

// hangUpSessions asks every process of the distro's commands to end: with
// SIGTERM, and those that have a terminal with SIGHUP too, as when it closes,
// because interactive shells ignore SIGTERM.
func (c *cgroup) hangUpSessions() {
	f, err := os.Open(filepath.Join(c.inside, sessionsGroup, "cgroup.procs"))
	if err != nil {
		return // there are none
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		pid, err := strconv.Atoi(s.Text())
		if err != nil || pid <= 1 {
			continue
		}
		if procfs.HasTerminal(pid) {
			unix.Kill(pid, unix.SIGHUP)
			unix.Kill(pid, unix.SIGCONT)
		}
		unix.Kill(pid, unix.SIGTERM)
	}
}

// awaitNoSessions waits until no process of a command is left.
func (c *cgroup) awaitNoSessions(ctx context.Context) error {
	return awaitEvent(ctx, filepath.Join(c.inside, sessionsGroup), "populated 0")
}

// awaitEvent waits until a group's cgroup.events has a line. Of a group that does not
// exist, everything is true.
func awaitEvent(ctx context.Context, group, line string) error {
	events := filepath.Join(group, "cgroup.events")
	f, err := os.Open(events)
	if err != nil {
		return nil
	}
	defer f.Close()
	for {
		b := make([]byte, 256)
		n, err := f.ReadAt(b, 0)
		if n == 0 && err != nil || strings.Contains(string(b[:n]), line) {
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
	if err := awaitEvent(ctx, c.path, "populated 0"); err != nil {
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
