package main

import (
	"strings"
	"testing"
)

const mountinfo = `22 1 0:20 /distros/a / rw shared:1 - btrfs /dev/vda rw
30 22 0:30 / /mnt/host rw - tmpfs host rw
31 30 0:31 / /mnt/host/home/ann ro - fuse ann ro
32 30 0:32 / /mnt/host/srv/da\040ta rw - fuse data rw
33 22 0:31 / /home/ann ro - fuse ann ro
`

func TestWslpath(t *testing.T) {
	m := readMounts(strings.NewReader(mountinfo))
	for _, c := range []struct{ guest, host string }{
		{"/mnt/host/home/ann/x", "/home/ann/x"}, {"/mnt/host/home/ann", "/home/ann"}, {"/home/ann/y z", "/home/ann/y z"},
		{"/mnt/host/srv/da ta/x", "/srv/da ta/x"}, {"/etc/passwd", ""}, {"/", ""}, {"/mnt/host", ""}, {"/mnt/host/home", ""}, {"/mnt/host/home/anna", ""},
	} {
		if got, _ := m.host(c.guest); got != c.host {
			t.Errorf("%s is %q on the host, want %q", c.guest, got, c.host)
		}
	}
	for _, c := range []struct{ host, guest string }{
		{"/home/ann/x", "/mnt/host/home/ann/x"}, {"/srv/da ta", "/mnt/host/srv/da ta"}, {"/etc", ""}, {"/home", ""},
	} {
		if got, ok := m.guest(c.host); ok != (c.guest != "") || ok && got != c.guest {
			t.Errorf("%s is %q in the distro, want %q", c.host, got, c.guest)
		}
	}
}

func FuzzMountinfo(f *testing.F) {
	f.Add(mountinfo, "/mnt/host/home/ann")
	f.Fuzz(func(t *testing.T, text, name string) {
		m := readMounts(strings.NewReader(text))
		if strings.HasPrefix(name, "/") {
			m.host(realPath(name))
		}
	})
}
