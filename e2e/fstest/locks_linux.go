package main

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const countArg, lockArg = "count", "lock"

// init makes the program another process of a case: it counts in a mapped page, for
// mmapShared, or locks the file that it has as descriptor 3, for lockOwners.
func init() {
	if os.Getenv("FSTEST") == "" || len(os.Args) < 2 {
		return
	}
	var err error
	switch os.Args[1] {
	case countArg:
		err = count(os.Args[2], os.Args[3])
	case lockArg:
		err = unix.FcntlFlock(3, unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	default:
		return
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// other starts the program as another process, and waits for its end.
func (c *c) other(files []*os.File, args ...string) {
	p, err := os.StartProcess("/proc/self/exe", append([]string{"fstest"}, args...),
		&os.ProcAttr{Files: append([]*os.File{nil, os.Stdout, os.Stderr}, files...), Env: append(os.Environ(), "FSTEST=1")})
	if err != nil {
		c.ok(err)
		return
	}
	st, err := p.Wait()
	c.ok(err)
	is(c, "exit code", st.ExitCode(), 0)
}

// lockOwners: the lock of a process ends with it, though others have the file open.
func lockOwners(c *c) {
	f, err := os.OpenFile(c.at("f"), os.O_CREATE|os.O_RDWR, 0o644)
	c.ok(err)
	defer f.Close()
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_RDLCK}); err == unix.ENOLCK {
		return
	}
	c.ok(unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_UNLCK}))
	c.other([]*os.File{f}, lockArg)
	c.ok(unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}))
}

func count(name, times string) error {
	n, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	for range n {
		atomic.AddUint64((*uint64)(unsafe.Pointer(&m[0])), 1)
	}
	return unix.Munmap(m)
}

func flock(c *c) {
	a, b := c.open("f", unix.O_CREAT|unix.O_RDWR, 0o644), c.open("f", unix.O_RDWR, 0)
	err := unix.Flock(a, unix.LOCK_EX)
	if err == unix.ENOLCK {
		return // an honest answer
	}
	c.ok(err)
	c.fails(unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
	c.fails(unix.Flock(b, unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
	c.ok(unix.Flock(a, unix.LOCK_SH)) // changes it
	c.ok(unix.Flock(b, unix.LOCK_SH|unix.LOCK_NB))
	c.fails(unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
	c.ok(unix.Flock(a, unix.LOCK_UN))
	c.ok(unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB))
	// It belongs to the open file, whose last descriptor gives it up.
	dup, err := unix.Dup(b)
	c.ok(err)
	unix.Close(b)
	c.fails(unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
	unix.Close(dup)
	c.ok(unix.Flock(a, unix.LOCK_EX)) // waits
	unix.Close(a)
}

// fcntlLocks uses locks of open files, so that one process can be two.
func fcntlLocks(c *c) {
	a, b := c.open("f", unix.O_CREAT|unix.O_RDWR, 0o644), c.open("f", unix.O_RDWR, 0)
	defer unix.Close(a)
	lock := func(fd int, kind int16, start, length int64) error {
		return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Start: start, Len: length})
	}
	err := lock(a, unix.F_WRLCK, 0, 10)
	if err == unix.ENOLCK {
		return
	}
	c.ok(err)
	c.ok(lock(b, unix.F_WRLCK, 10, 10))
	c.fails(lock(b, unix.F_WRLCK, 5, 10), unix.EAGAIN, unix.EACCES)
	c.fails(lock(b, unix.F_RDLCK, 9, 1), unix.EAGAIN, unix.EACCES)
	// The middle of a lock is given up.
	c.ok(lock(a, unix.F_UNLCK, 3, 4))
	c.ok(lock(b, unix.F_WRLCK, 3, 4))
	c.fails(lock(b, unix.F_WRLCK, 2, 1), unix.EAGAIN, unix.EACCES)
	c.fails(lock(b, unix.F_WRLCK, 7, 1), unix.EAGAIN, unix.EACCES)
	// Who holds it?
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: 1}
	c.ok(unix.FcntlFlock(uintptr(b), unix.F_OFD_GETLK, &l))
	is(c, "kind", l.Type, unix.F_WRLCK)
	l = unix.Flock_t{Type: unix.F_WRLCK, Start: 100, Len: 1}
	c.ok(unix.FcntlFlock(uintptr(b), unix.F_OFD_GETLK, &l))
	is(c, "kind", l.Type, unix.F_UNLCK)
	// Readers share, to the end of the file.
	c.ok(lock(a, unix.F_RDLCK, 100, 0))
	c.ok(lock(b, unix.F_RDLCK, 1000, 10))
	c.fails(lock(b, unix.F_WRLCK, 1<<40, 1), unix.EAGAIN, unix.EACCES)
	unix.Close(b) // gives its locks up, if not at once
	c.ok(unix.FcntlFlock(uintptr(a), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK}))
	read := c.open("f", unix.O_RDONLY, 0)
	c.fails(lock(read, unix.F_WRLCK, 0, 1), unix.EBADF)
	unix.Close(read)
}

func lockWaits(c *c) {
	a, b := c.open("f", unix.O_CREAT|unix.O_RDWR, 0o644), c.open("f", unix.O_RDWR, 0)
	defer unix.Close(b)
	if err := unix.Flock(a, unix.LOCK_EX); err == unix.ENOLCK {
		unix.Close(a)
		return
	}
	got := make(chan error, 1)
	go func() { got <- unix.Flock(b, unix.LOCK_EX) }()
	c.write("other", "") // goes on meanwhile
	select {
	case err := <-got:
		c.errorf("locked twice: %v", err)
	default:
	}
	unix.Close(a)
	c.ok(<-got)
}
