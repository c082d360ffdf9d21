package transfer

import (
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// What follows does with few system calls what the other systems do through package os:
// there may be very many small files, and a VM without KVM takes long over each call.

// openEntry opens a file of a directory, and reads it where it is small: see [opened].
func openEntry(dir *os.File, _, base string) (o opened) {
	fd, err := openat(int(dir.Fd()), base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return opened{err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		closefd(fd)
		return opened{err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > smallSent || st.Nlink > 1 || st.Blocks*512 < st.Size && st.Size > holeSize {
		f := os.NewFile(uintptr(fd), base)
		o.file = f
		o.info, o.err = f.Stat()
		return o
	}
	defer closefd(fd)
	o.perm, o.mod = fs.FileMode(st.Mode&0o777), time.Unix(st.Mtim.Unix())
	o.data = make([]byte, st.Size)
	for at := 0; at < len(o.data); {
		n, err := pread(fd, o.data[at:], int64(at))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 { // it got shorter: read again as others are
			o.data = o.data[:at]
			o.err = err
			break
		}
		at += n
	}
	return o
}

// holeSize is up to which size holes do not matter. btrfs keeps such files among its metadata.
const holeSize = 4 << 10

// small makes a file of which all bytes are here. Where nobody can see the directory yet, it
// gets its name at once.
func (j *job) small() error {
	dir, err := j.dir.fd()
	if err != nil {
		return err
	}
	if j.unseen {
		err := j.write(dir, j.base)
		if err != unix.EEXIST {
			return err
		}
	}
	// One of an earlier copy goes: another may be open for reading it.
	if err := j.write(dir, j.part); err == unix.EEXIST {
		unix.Unlinkat(dir, j.part, 0)
		err = j.write(dir, j.part)
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if err := unix.Renameat(dir, j.part, dir, j.base); err != nil {
		unix.Unlinkat(dir, j.part, 0)
		return err
	}
	return nil
}

// write makes a file of a name that nobody has. name is one word, so the kernel follows no link.
func (j *job) write(dir int, name string) error {
	fd, err := openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, uint32(j.mode)|0o200)
	if err != nil {
		return err
	}
	err = j.fill(fd)
	if cerr := closefd(fd); err == nil {
		err = cerr
	}
	if err != nil {
		unix.Unlinkat(dir, name, 0)
	}
	return err
}

func (j *job) fill(fd int) error {
	for data := j.data; len(data) > 0; {
		n, err := write(fd, data)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		data = data[n:]
	}
	if mode := uint32(j.mode); (mode|0o200)&^umask() != mode {
		if err := unix.Fchmod(fd, mode); err != nil {
			return err
		}
	}
	return setTimes(fd, unix.NsecToTimespec(j.mod.UnixNano()))
}

// umask is what the kernel takes away from the modes of new files. It is read where reading
// does not change it.
var umask = sync.OnceValue(func() uint32 {
	b, _ := os.ReadFile("/proc/self/status")
	_, line, _ := strings.Cut(string(b), "\nUmask:\t")
	line, _, _ = strings.Cut(line, "\n")
	n, err := strconv.ParseUint(line, 8, 32)
	if err != nil {
		return 0o7777 // unknown: no mode is taken for set
	}
	return uint32(n)
})
