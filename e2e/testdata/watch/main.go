// Watch prints what inotify tells of directories and files, one event a line, until its input
// ends, for tests and the benchmark that run it in a distro without tools:
//
//	watch PATH...
//
// A line is the event's kind and path. The first line is "ready".
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

var kinds = []struct {
	mask uint32
	name string
}{
	{unix.IN_CREATE, "create"}, {unix.IN_DELETE, "delete"}, {unix.IN_MOVED_FROM, "from"}, {unix.IN_MOVED_TO, "to"}, {unix.IN_MODIFY, "modify"},
	{unix.IN_CLOSE_WRITE, "close"}, {unix.IN_ATTRIB, "attrib"}, {unix.IN_DELETE_SELF, "gone"}, {unix.IN_Q_OVERFLOW, "overflow"},
}

func main() {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		log.Fatal(err)
	}
	mask := uint32(0)
	for _, k := range kinds {
		mask |= k.mask
	}
	paths := map[int32]string{}
	for _, path := range os.Args[1:] {
		wd, err := unix.InotifyAddWatch(fd, path, mask)
		if err != nil {
			log.Fatalf("watch %s: %v", path, err)
		}
		paths[int32(wd)] = path
	}
	fmt.Println("ready")
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	buf := make([]byte, 1<<20)
	for {
		n, err := unix.Read(fd, buf)
		if err != nil {
			log.Fatal(err)
		}
		var lines bytes.Buffer
		ne := binary.NativeEndian
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			got, size := ne.Uint32(b[4:]), ne.Uint32(b[12:])
			name := string(bytes.TrimRight(b[16:16+size], "\x00"))
			for _, k := range kinds {
				if got&k.mask != 0 {
					fmt.Fprintln(&lines, k.name, filepath.Join(paths[int32(ne.Uint32(b))], name))
				}
			}
			b = b[16+size:]
		}
		os.Stdout.Write(lines.Bytes())
	}
}
