package forward

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/lsub/lsub/printable"
)

// Program returns the name, for people, of the program of the host that listens on an
// address; "" if it is not known.
func Program(network string, at netip.AddrPort) string {
	var inode, uid string
	for _, file := range []string{network, network + "6"} {
		f, err := os.Open("/proc/net/" + file)
		if err != nil {
			continue
		}
		inode, uid = socketAt(f, network, at)
		f.Close()
		if inode != "" {
			break
		}
	}
	if inode == "" || inode == "0" {
		return ""
	}
	pid := processWith("socket:[" + inode + "]")
	if pid == 0 {
		if u, err := user.LookupId(uid); err == nil {
			uid = u.Username
		}
		return "a program of user " + uid // this user may not read its files
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%s (process %d)", printable.Line(strings.TrimSpace(string(comm))), pid)
}

// socketAt finds the socket that blocks listening on an address, in a table of the kernel.
func socketAt(table io.Reader, network string, at netip.AddrPort) (inode, uid string) {
	state := "0A" // LISTEN
	if network == UDP {
		state = "07" // CLOSE: not connected
	}
	for lines := bufio.NewScanner(table); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || f[3] != state {
			continue
		}
		if has, ok := parseAddress(f[1]); ok && inTheWay(has, at) {
			return f[9], f[7]
		}
	}
	return "", ""
}

// parseAddress parses an address from the kernel's tables: "0100007F:0050", in words of 4
// bytes in the byte order of this machine.
func parseAddress(text string) (netip.AddrPort, bool) {
	addr, port, _ := strings.Cut(text, ":")
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	b, err := hex.DecodeString(addr)
	if err != nil {
		return netip.AddrPort{}, false
	}
	for words := b; len(words) >= 4; words = words[4:] {
		binary.NativeEndian.PutUint32(words, binary.BigEndian.Uint32(words))
	}
	a, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a, uint16(n)), ok
}

// processWith returns a process that has a file open, given as the link in the process's
// directory of open files; 0 if this user can see none.
func processWith(link string) int {
	dirs, _ := filepath.Glob("/proc/[0-9]*/fd")
	for _, dir := range dirs {
		files, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, f := range files {
			if to, err := os.Readlink(filepath.Join(dir, f.Name())); err == nil && to == link {
				pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
				return pid
			}
		}
	}
	return 0
}
