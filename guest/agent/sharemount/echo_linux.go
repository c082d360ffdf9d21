package sharemount

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/share/echo"
)

// Echo repeats changes of the host on a mount, as the server of the share orders on conn,
// until the stream ends. So the kernel forgets what it knew, and those who watch the files
// (inotify) hear of the change. root is the root directory of a mount that can be written.
// The server knows the requests by the thread that makes them, and changes nothing
// on the host for them.
func Echo(conn net.Conn, root *os.File) error {
	at, err := blockingCopy(conn)
	if err != nil {
		return err
	}
	stream := os.NewFile(uintptr(at), "echoes")
	defer stream.Close()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: no other goroutine gets this thread
		done <- echoes(stream, root)
		// The number of this thread stands for echoes until the server has seen the end. The
		// thread ends after that.
		_ = unix.Shutdown(at, unix.SHUT_WR)
		for b := make([]byte, 4096); ; {
			if n, err := unix.Read(at, b); n <= 0 && err != unix.EINTR {
				close(done)
				return
			}
		}
	}()
	err = <-done
	<-done
	return err
}

// echoes carries orders out.
func echoes(stream *os.File, root *os.File) error {
	fd, err := unix.Openat(int(root.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the share: %w", err)
	}
	defer unix.Close(fd)
	if err := echo.WriteNumber(stream, uint32(unix.Gettid())); err != nil {
		return err
	}
	for {
		orders, err := echo.ReadBatch(stream)
		if err != nil {
			return err
		}
		for i := range orders {
			_ = carryOut(fd, &orders[i]) // it is renewed then
		}
		if err := echo.WriteNumber(stream, uint32(len(orders))); err != nil {
			return err
		}
	}
}

// openNode opens a directory: by its node if the kernel has that in its cache and knows where
// it is, else by its path. The kernel may know only the node of a directory that somebody
// watches.
func openNode(mount int, id uint64, path string) (int, error) {
	const fileidInode64Generation = 0x81 // FILEID_INO64_GEN, of linux/exportfs.h
	ne := binary.NativeEndian
	var h []byte
	h = ne.AppendUint32(h, uint32(id>>32))
	h = ne.AppendUint32(h, uint32(id))
	h = ne.AppendUint32(h, 0) // the generation
	fd, err := unix.OpenByHandleAt(mount, unix.NewFileHandle(fileidInode64Generation, h), unix.O_PATH|unix.O_CLOEXEC)
	if err != unix.ESTALE || path == "" {
		return fd, err
	}
	return unix.Openat2(mount, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
}

// carryOut carries one order out. An operation that fails leaves the names to be looked up
// anew.
func carryOut(mount int, o *echo.Order) error {
	dir, err := openNode(mount, o.Dir, o.Path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	to := dir
	if o.Do&echo.Rename != 0 && o.ToDir != o.Dir {
		if to, err = openNode(mount, o.ToDir, o.ToPath); err != nil {
			renew(dir, o.Name)
			return err
		}
		defer unix.Close(to)
	}
	err = structure(dir, to, o)
	if err == unix.ENOENT { // the kernel has found out that the entry is gone, but nobody was told
		renew(dir, o.Name)
		err = structure(dir, to, o)
	}
	if err != nil || o.Do&echo.Renew != 0 {
		renew(dir, o.Name)
		if o.Do&echo.Rename != 0 {
			renew(to, o.To)
		}
		if err != nil {
			return err
		}
	}
	return contents(dir, o)
}

// structure changes entries.
func structure(dir, to int, o *echo.Order) error {
	if o.Do&(echo.Unlink|echo.Rmdir) != 0 {
		flags := 0
		if o.Do&echo.Rmdir != 0 {
			flags = unix.AT_REMOVEDIR
		}
		if err := unix.Unlinkat(dir, o.Name, flags); err != nil {
			return err
		}
	}
	if o.Do&echo.Rename != 0 {
		return unix.Renameat(dir, o.Name, to, o.To)
	}
	if o.Do&echo.Make == 0 {
		return nil
	}
	switch o.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return unix.Mkdirat(dir, o.Name, o.Mode&0o7777)
	case unix.S_IFLNK:
		return unix.Symlinkat("echo", dir, o.Name) // the server answers with what it leads to
	}
	return unix.Mknodat(dir, o.Name, o.Mode, 0)
}

// renew has the kernel ask for a name. To make something that must not be there yet
// (LOOKUP_EXCL) is what it always asks for.
func renew(dir int, name string) {
	if name != "" {
		_ = unix.Mknodat(dir, name, unix.S_IFREG|0o600, 0)
	}
}

// contents changes files.
func contents(dir int, o *echo.Order) error {
	omit, now := unix.Timespec{Nsec: unix.UTIME_OMIT}, unix.Timespec{}
	set := func(atime unix.Timespec) error {
		return unix.UtimesNanoAt(dir, o.Name, []unix.Timespec{atime, now}, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH)
	}
	if o.Do&echo.Attributes != 0 {
		if err := set(now); err != nil {
			return err
		}
	}
	open := -1
	if o.Do&echo.CloseWrite != 0 {
		fd, err := unix.Openat(dir, o.Name, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err == nil { // else it runs as a program, or is gone
			open = fd
			defer unix.Close(open)
		}
	}
	if o.Do&echo.Refresh != 0 || o.Do&echo.Modify != 0 && open < 0 { // else the open has dropped the pages
		var st unix.Statx_t
		if err := unix.Statx(dir, o.Name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st); err != nil {
			return err
		}
	}
	if o.Do&echo.Modify != 0 {
		return set(omit)
	}
	return nil
}
