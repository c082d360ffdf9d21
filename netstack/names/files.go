package names

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Hosts is a hosts file. Names are in lower case.
type Hosts struct {
	Addrs map[string][]netip.Addr
	Names map[netip.Addr]string // the first name of an address
}

// ParseHosts reads a hosts file. It skips invalid lines, as other programs do.
func ParseHosts(data []byte) Hosts {
	h := Hosts{map[string][]netip.Addr{}, map[netip.Addr]string{}}
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		addr, err := netip.ParseAddr(fields[0])
		if err != nil {
			continue
		}
		addr = addr.Unmap().WithZone("")
		for _, name := range fields[1:] {
			name = plainName(name)
			if name != "" && !slices.Contains(h.Addrs[name], addr) {
				h.Addrs[name] = append(h.Addrs[name], addr)
			}
		}
		if _, named := h.Names[addr]; !named && !addr.IsUnspecified() { // 0.0.0.0 blocks names
			h.Names[addr] = plainName(fields[1])
		}
	}
	return h
}

func plainName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// maxServers is how many servers of resolv.conf are used, as in C libraries.
const maxServers = 3

// ParseResolvConf reads an /etc/resolv.conf. Without a server in it, the server is the host
// itself, as in C libraries.
func ParseResolvConf(data []byte) Resolv {
	var c Resolv
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0][0] == '#' || fields[0][0] == ';' {
			continue
		}
		switch fields[0] {
		case "nameserver":
			addr, err := netip.ParseAddr(fields[1])
			if err == nil && len(c.Servers) < maxServers {
				c.Servers = append(c.Servers, netip.AddrPortFrom(addr.Unmap(), 53))
			}
		case "domain", "search": // the last one counts
			c.Search = nil
			for _, d := range fields[1:] {
				if d = plainName(d); d != "" {
					c.Search = append(c.Search, d)
				}
			}
		}
	}
	if len(c.Servers) == 0 {
		c.Servers = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 53)}
	}
	return c
}

// watched is the parsed content of a file. It is read again when the file has changed. An
// unreadable file counts as empty.
type watched[T any] struct {
	path  string
	parse func([]byte) T

	mu    sync.Mutex
	fi    os.FileInfo // as of the last read; nil forces a read
	value T
}

// racy is how long after a change another change may have the same time.
const racy = 100 * time.Millisecond

func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	fi, err := os.Stat(w.path)
	if err == nil && w.fi != nil && os.SameFile(fi, w.fi) && fi.ModTime().Equal(w.fi.ModTime()) && fi.Size() == w.fi.Size() {
		return w.value
	}
	now := time.Now()
	data, readErr := os.ReadFile(w.path)
	w.value, w.fi = w.parse(data), nil
	if err == nil && readErr == nil && now.Sub(fi.ModTime()) > racy {
		w.fi = fi
	}
	return w.value
}
