package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// c is one case. Its names are relative to a directory that is new.
type c struct {
	dir  string
	mu   sync.Mutex
	errs []string
}

func (c *c) errorf(format string, args ...any) {
	_, file, line, _ := runtime.Caller(2)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errs = append(c.errs, fmt.Sprintf("%s:%d: ", filepath.Base(file), line)+fmt.Sprintf(format, args...))
}

// ok expects success.
func (c *c) ok(err error) {
	if err != nil {
		c.errorf("%v", err)
	}
}

// fails expects one of the errors.
func (c *c) fails(err error, want ...unix.Errno) {
	for _, w := range want {
		if errors.Is(err, w) {
			return
		}
	}
	c.errorf("got %v, want %v", err, want)
}

// is expects equal values.
func is[T comparable](c *c, what string, got, want T) {
	if got != want {
		c.errorf("%s is %v, want %v", what, got, want)
	}
}

// at is the path of a name. A slash at its end stays.
func (c *c) at(name string) string { return c.dir + "/" + name }

// open opens a file; the case's other calls fail if it cannot.
func (c *c) open(name string, flags int, mode uint32) int {
	fd, err := unix.Open(c.at(name), flags|unix.O_CLOEXEC, mode)
	if err != nil {
		c.errorf("open %s: %v", name, err)
		return -1
	}
	return fd
}

// try opens a file that should not open.
func (c *c) try(name string, flags int) error {
	fd, err := unix.Open(c.at(name), flags|unix.O_CLOEXEC, 0o644)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func (c *c) write(name, text string) {
	if err := os.WriteFile(c.at(name), []byte(text), 0o644); err != nil {
		c.errorf("%v", err)
	}
}

// has expects a file's content.
func (c *c) has(name, want string) {
	b, err := os.ReadFile(c.at(name))
	if err != nil || string(b) != want {
		c.errorf("%s has %.50q, %v; want %.50q", name, b, err, want)
	}
}

func (c *c) stat(name string) unix.Stat_t {
	var st unix.Stat_t
	if err := unix.Lstat(c.at(name), &st); err != nil {
		c.errorf("lstat %s: %v", name, err)
	}
	return st
}

func (c *c) fstat(fd int) unix.Stat_t {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		c.errorf("fstat: %v", err)
	}
	return st
}

// later runs change, and expects that a time of the file moves on by it.
func (c *c) later(name string, of func(unix.Stat_t) unix.Timespec, change func()) {
	before := of(c.stat(name))
	// The clock of a file system moves in steps of some milliseconds. A change until then has
	// the same time.
	tick := filepath.Join(c.dir, ".tick")
	for {
		os.Remove(tick)
		if err := os.WriteFile(tick, nil, 0o600); err != nil {
			c.errorf("%v", err)
			return
		}
		var st unix.Stat_t
		if unix.Lstat(tick, &st) == nil && st.Ctim.Nano() > before.Nano() {
			break
		}
	}
	os.Remove(tick)
	change()
	if after := of(c.stat(name)); after.Nano() <= before.Nano() {
		c.errorf("the time of %s is %d, and was %d", name, after.Nano(), before.Nano())
	}
}

func mtime(st unix.Stat_t) unix.Timespec { return st.Mtim }
func ctime(st unix.Stat_t) unix.Timespec { return st.Ctim }

// runCases runs the cases that match, and returns how many failed.
func runCases(dir string, match *regexp.Regexp, report func(name string, errs []string)) (failed int) {
	unix.Umask(0o022)
	for i, k := range cases {
		if !match.MatchString(k.name) {
			continue
		}
		c := &c{dir: filepath.Join(dir, fmt.Sprintf("case-%d", i))}
		if err := os.Mkdir(c.dir, 0o755); err != nil {
			report(k.name, []string{err.Error()})
			failed++
			continue
		}
		k.run(c)
		if err := os.RemoveAll(c.dir); err != nil {
			c.errs = append(c.errs, "remove: "+err.Error())
		}
		if len(c.errs) > 0 {
			failed++
			report(k.name, c.errs)
		}
	}
	return failed
}

// cases are all cases, in the order in which they run.
var cases = []struct {
	name string
	run  func(*c)
}{
	{"open: flags", openFlags}, {"open: links", openLinks}, {"open: unnamed", openUnnamed}, {"open: append", appends}, {"open: direct", direct},
	{"names", names}, {"mkdir", mkdir}, {"unlink", unlink}, {"unlink: open", unlinkOpen},
	{"rename", rename}, {"rename: flags", renameFlags}, {"rename: open", renameOpen},
	{"link", link}, {"symlink", symlink}, {"chmod", chmod}, {"killpriv", killpriv},
	{"truncate", truncate}, {"read and write", readWrite}, {"times", times}, {"times: set", setTimes},
	{"xattr", xattr}, {"holes", holes}, {"fallocate", fallocate}, {"copy", copyRange},
	{"mmap", mmap}, {"mmap: two processes", mmapShared}, {"flock", flock}, {"fcntl", fcntlLocks}, {"fcntl: owners", lockOwners}, {"locks: wait", lockWaits},
	{"readdir", readdir}, {"readdir: while it changes", readdirChanges}, {"special files", special}, {"sync", syncs}, {"statfs", statfs},
}
