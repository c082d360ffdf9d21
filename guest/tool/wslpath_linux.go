package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// hostDir is where distros see folders of the host.
const hostDir = "/mnt/host"

// wslpath is WSL's command: it says what a path of the distro is called on the host (-w, -m),
// or the reverse (-u).
func wslpath(args []string) int {
	toHost, name := false, ""
	for _, a := range args[1:] {
		switch a {
		case "-u", "-a":
		case "-w", "-m":
			toHost = true
		default:
			if name != "" || strings.HasPrefix(a, "-") {
				fmt.Fprintln(os.Stderr, "usage: wslpath [-u|-w|-m] [-a] PATH")
				return 2
			}
			name = a
		}
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		fmt.Fprintln(os.Stderr, "wslpath:", err)
		return 1
	}
	defer f.Close()
	mounts := readMounts(f)
	var out string
	var ok bool
	if toHost {
		out, ok = mounts.host(realPath(name))
	} else if path.IsAbs(name) {
		out, ok = mounts.guest(path.Clean(name))
	}
	if !ok || name == "" {
		fmt.Fprintf(os.Stderr, "wslpath: %s: not in a folder that the host shares\n", name)
		return 1
	}
	fmt.Println(out)
	return 0
}

// realPath is absolute and without links, as far as it is there.
func realPath(name string) string {
	abs, err := filepath.Abs(name)
	if err != nil {
		return name
	}
	for dir, rest := abs, ""; ; dir, rest = path.Dir(dir), path.Join(path.Base(dir), rest) {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return path.Join(real, rest)
		}
		if dir == "/" {
			return abs
		}
	}
}

// mounts are those of this mount namespace, by path: their file systems.
type mounts map[string]string

// readMounts reads /proc/self/mountinfo. Of several mounts at one path, the last one is seen.
func readMounts(r io.Reader) mounts {
	m := mounts{}
	for lines := bufio.NewScanner(r); lines.Scan(); {
		if f := strings.Fields(lines.Text()); len(f) > 4 {
			m[unescape(f[4])] = f[2] + " " + f[3]
		}
	}
	return m
}

// unescape undoes the kernel's \040 and the like.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// above returns the mount that a path is in, and the path in that.
func (m mounts) above(name string) (at, rest string) {
	for at = name; ; at = path.Dir(at) {
		if _, ok := m[at]; ok || at == "/" {
			return at, strings.TrimPrefix(strings.TrimPrefix(name, at), "/")
		}
	}
}

// host is the host's name for a path of the distro.
func (m mounts) host(name string) (string, bool) {
	at, rest := m.above(name)
	for share, fs := range m {
		if dir, ok := strings.CutPrefix(share, hostDir+"/"); ok && fs == m[at] {
			return path.Join("/", dir, rest), true
		}
	}
	return "", false
}

// guest is the distro's name for a path of the host.
func (m mounts) guest(name string) (string, bool) {
	guest := path.Join(hostDir, name)
	at, _ := m.above(guest)
	return guest, strings.HasPrefix(at, hostDir+"/")
}
