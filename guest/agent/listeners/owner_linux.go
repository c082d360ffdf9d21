package listeners

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// groupRoot is the root of the control groups.
const groupRoot = "/sys/fs/cgroup"

// owners tells whose a socket is. It is for one goroutine at a time.
type owners struct {
	root  *os.File
	paths map[uint64]string // of control groups, below the root
}

func openOwners() (*owners, error) {
	root, err := os.Open(groupRoot)
	if err != nil {
		return nil, err
	}
	return &owners{root: root, paths: map[uint64]string{}}, nil
}

func (o *owners) close() { o.root.Close() }

// kernfsHandle is FILEID_KERNFS: the file handle of a control group is its id.
const kernfsHandle = 0xfe

// path returns the path of a control group below the root, "" where it is gone.
// The ids of groups are never used again.
func (o *owners) path(group uint64) string {
	if p, ok := o.paths[group]; ok {
		return p
	}
	handle := unix.NewFileHandle(kernfsHandle, binary.NativeEndian.AppendUint64(nil, group))
	fd, err := unix.OpenByHandleAt(int(o.root.Fd()), handle, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	p, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return ""
	}
	p = strings.TrimPrefix(p, groupRoot)
	o.paths[group] = p
	return p
}

// forget drops what is known of groups that no listener has any more.
func (o *owners) forget(used []Listener) {
	if len(o.paths) <= 2*len(used)+16 {
		return
	}
	keep := map[uint64]string{}
	for _, l := range used {
		if p, ok := o.paths[l.group]; ok {
			keep[l.group] = p
		}
	}
	o.paths = keep
}

// distro returns the id of the distro that a socket belongs to, "" for none.
func (o *owners) distro(s socket) string {
	if s.group == 0 {
		return ""
	}
	return distroOf(o.path(s.group))
}

// lookupTime bounds the search for the processes of listeners: a distro may have
// a great many files open.
const lookupTime = 2 * time.Second

// pathsOf returns the directories of the groups that the listeners were made in.
func (o *owners) pathsOf(all []Listener) []string {
	var dirs []string
	for _, l := range all {
		if p := o.path(l.group); l.PID == 0 && p != "" {
			dirs = append(dirs, filepath.Join(groupRoot, p))
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// name finds the processes of those listeners that have none yet. It looks at the
// groups of their makers first, which are those of services, and then at whole distros.
func name(all []Listener, groups []string) {
	wanted := map[uint32]*Listener{}
	for i := range all {
		if all[i].PID == 0 {
			wanted[all[i].inode] = &all[i]
		}
	}
	deadline := time.Now().Add(lookupTime)
	for _, dir := range groups {
		searchGroup(dir, wanted, deadline)
	}
	var distros []string
	for _, l := range wanted {
		distros = append(distros, l.Distro)
	}
	slices.Sort(distros)
	for _, id := range slices.Compact(distros) {
		filepath.WalkDir(filepath.Join(groupRoot, groupsOfDistros, id), func(p string, d fs.DirEntry, err error) error {
			if err != nil || len(wanted) == 0 || time.Now().After(deadline) {
				return fs.SkipAll
			}
			if d.IsDir() {
				searchGroup(p, wanted, deadline)
			}
			return nil
		})
	}
}

// searchGroup looks for wanted sockets, by inode, among the open files of the
// processes in a group, and takes those that it finds out of wanted.
func searchGroup(dir string, wanted map[uint32]*Listener, deadline time.Time) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return
	}
	for _, pid := range strings.Fields(string(b)) {
		if len(wanted) == 0 || time.Now().After(deadline) {
			return
		}
		if _, err := strconv.Atoi(pid); err == nil {
			searchProcess(filepath.Join("/proc", pid), wanted)
		}
	}
}

func searchProcess(proc string, wanted map[uint32]*Listener) {
	dir, err := os.Open(filepath.Join(proc, "fd"))
	if err != nil {
		return
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return
	}
	for _, fd := range names {
		link, err := os.Readlink(filepath.Join(proc, "fd", fd))
		if err != nil {
			continue
		}
		l := wanted[socketInode(link)]
		if l == nil {
			continue
		}
		status, err := os.ReadFile(filepath.Join(proc, "status"))
		if err != nil {
			return
		}
		l.Process, l.PID = parseStatus(string(status))
		delete(wanted, l.inode)
	}
}
