package cgroup

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

// Root holds the control groups of all distros.
const Root = "/sys/fs/cgroup/distros"

// SessionsGroup is where a distro's commands are. They cannot be in the root
// of its groups, which has controllers switched on by systemd, and must be out
// of the way of systemd's own.
const SessionsGroup = ".lsub"

// InsideGroup is the root of what a distro sees of its groups. The limits of a distro
// are set one above it, where the distro cannot lift them.
const InsideGroup = "inside"

// Group is the control group of a distro.
type Group struct {
	path   string   // holds the distro's limits
	inside string   // the root that the distro sees
	dir    *os.File // of inside
}

// New makes the group of the distro with the id, and gives it limits. The caller
// removes it.
func New(id string, limits *guestv1.Limits) (*Group, error) {
	g := At(filepath.Join(Root, id))
	if err := os.MkdirAll(g.inside, 0o755); err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	if err := delegateControllers(g.path); err != nil {
		return nil, err
	}
	if err := g.SetLimits(limits); err != nil {
		return nil, err
	}
	var err error
	if g.dir, err = os.Open(g.inside); err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	return g, nil
}

// At returns the group at a path, which exists, for those who only look at it.
func At(path string) *Group {
	return &Group{path: path, inside: filepath.Join(path, InsideGroup)}
}

// FD returns the descriptor of the group that the distro sees as the root of its groups,
// for starting its init there. It is open until Remove.
func (g *Group) FD() int { return int(g.dir.Fd()) }

// OpenSessions opens the group of the distro's commands. The caller closes it. It
// works beneath the open directory, because the namespace thread, which calls it, sees
// other mounts.
func (g *Group) OpenSessions() (*os.File, error) {
	at := int(g.dir.Fd())
	fd, err := unix.Openat(at, SessionsGroup, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		if err = unix.Mkdirat(at, SessionsGroup, 0o755); err == nil || err == unix.EEXIST {
			fd, err = unix.Openat(at, SessionsGroup, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cgroup of the commands: %w", err)
	}
	return os.NewFile(uintptr(fd), SessionsGroup), nil
}

// Kill ends every process of the distro.
func (g *Group) Kill() error {
	return os.WriteFile(filepath.Join(g.path, "cgroup.kill"), []byte("1"), 0)
}

// Freeze stops every process of the distro, and returns when all of them stand still.
func (g *Group) Freeze(timeout time.Duration) error {
	if err := os.WriteFile(filepath.Join(g.path, "cgroup.freeze"), []byte("1"), 0); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return awaitEvent(ctx, g.path, "frozen 1")
}

// Thaw lets the processes go on after Freeze.
func (g *Group) Thaw() error {
	return os.WriteFile(filepath.Join(g.path, "cgroup.freeze"), []byte("0"), 0)
}

// KillSessions ends every process of the distro's commands.
func (g *Group) KillSessions() {
	os.WriteFile(filepath.Join(g.inside, SessionsGroup, "cgroup.kill"), []byte("1"), 0)
}

// HangUpSessions asks every process of the distro's commands to end: with
// SIGTERM, and those that have a terminal with SIGHUP too, as when it closes,
// because interactive shells ignore SIGTERM.
func (g *Group) HangUpSessions() {
	f, err := os.Open(filepath.Join(g.inside, SessionsGroup, "cgroup.procs"))
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

// AwaitNoSessions waits until no process of a command is left.
func (g *Group) AwaitNoSessions(ctx context.Context) error {
	return awaitEvent(ctx, filepath.Join(g.inside, SessionsGroup), "populated 0")
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

// Remove deletes the group and those below it, waiting for what was killed to
// be gone.
func (g *Group) Remove() error {
	defer g.dir.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := awaitEvent(ctx, g.path, "populated 0"); err != nil {
		return fmt.Errorf("processes are left in %s: %w", g.path, err)
	}
	return removeGroups(g.path)
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
