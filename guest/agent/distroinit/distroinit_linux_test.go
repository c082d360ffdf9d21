package distroinit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest/agent/distrofile"
)

// newTree makes the files of a small root file system.
func newTree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestHostsWith(t *testing.T) {
	const local = "127.0.0.1\tlocalhost\n"
	for _, c := range []struct{ name, text, host, want string }{
		{"none", "", "box", local + "::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\tbox\t# lsub\n"},
		{"usual", local, "box", local + "127.0.1.1\tbox\t# lsub\n"},
		{"no newline at the end", "127.0.0.1 localhost", "box", "127.0.0.1 localhost\n127.0.1.1\tbox\t# lsub\n"},
		{"known", local + "10.0.0.1 x box # mine\n", "box", local + "10.0.0.1 x box # mine\n"},
		{"in a comment only", local + "# box\n", "box", local + "# box\n127.0.1.1\tbox\t# lsub\n"},
		{"again", local + "127.0.1.1\tbox\t# lsub\n", "box", local + "127.0.1.1\tbox\t# lsub\n"},
		{"renamed", local + "127.0.1.1\told\t# lsub\n10.0.0.1 x\n", "box", local + "10.0.0.1 x\n127.0.1.1\tbox\t# lsub\n"},
		{"named by the user since", local + "127.0.1.1\tbox\t# lsub\n127.0.1.1 box\n", "box", local + "127.0.1.1 box\n"},
	} {
		if got := hostsWith(c.text, c.host); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestFollowTimezone(t *testing.T) {
	root := newTree(t, map[string]string{
		"usr/share/zoneinfo/Europe/Berlin": "TZif", "usr/share/zoneinfo/Etc/GMT+1": "TZif", "etc/timezone": "Etc/UTC\n", "etc/passwd": "",
	})
	for _, zone := range []string{"Europe/Berlin", "Etc/GMT+1", "Etc/GMT+1"} {
		if err := followTimezone(root, zone); err != nil {
			t.Fatal(err)
		}
		to, _ := os.Readlink(filepath.Join(root, "etc/localtime"))
		b, _ := os.ReadFile(filepath.Join(root, "etc/timezone"))
		if to != "/usr/share/zoneinfo/"+zone || string(b) != zone+"\n" {
			t.Errorf("%s: %s, %q", zone, to, b)
		}
	}
	for _, zone := range []string{"", "Mars/Base", "Europe", "../../../../etc/passwd", "/etc/passwd", "Europe//Berlin", "a b", "Europe/.."} {
		if err := followTimezone(root, zone); err == nil {
			t.Errorf("the zone %q was taken", zone)
		}
	}
	if to, _ := os.Readlink(filepath.Join(root, "etc/localtime")); to != "/usr/share/zoneinfo/Etc/GMT+1" {
		t.Errorf("a zone that is none changed the link to %s", to)
	}
	// As systemd writes it: that is the same zone already.
	os.Remove(filepath.Join(root, "etc/localtime"))
	os.Remove(filepath.Join(root, "etc/timezone"))
	const relative = "../usr/share/zoneinfo/Europe/Berlin"
	if err := os.Symlink(relative, filepath.Join(root, "etc/localtime")); err != nil {
		t.Fatal(err)
	}
	if err := followTimezone(root, "Europe/Berlin"); err != nil {
		t.Fatal(err)
	}
	if to, _ := os.Readlink(filepath.Join(root, "etc/localtime")); to != relative {
		t.Errorf("the link was written anew: %s", to)
	}
	if distrofile.Exists(filepath.Join(root, "etc/timezone")) {
		t.Error("a distro without /etc/timezone has one now")
	}
}

func TestParseSetUp(t *testing.T) {
	r, err := parseReport(`{"Init":"systemd","Warnings":["error: x"],"Timeout":1000000000}` + "\n")
	if err != nil || r.Init != Systemd || len(r.Warnings) != 1 || r.Timeout != time.Second {
		t.Errorf("%+v, %v", r, err)
	}
	for said, want := range map[string]string{
		"error: no disk\n": "no disk",
		`{"Init":"systemd"}` + "\nerror: run /sbin/init: denied\n": "run /sbin/init: denied",
		"":                          "died while",
		`{"Init":"upstart"}` + "\n": "died while",
		`{"Init":"tiny"`:            "died while",
		`{"Init":"tiny"}` + "\nx":   "died while",
	} {
		if r, err := parseReport(said); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v", said, r, err)
		}
	}
}

func TestListsMounts(t *testing.T) {
	for text, want := range map[string]bool{"": false, "# UNCONFIGURED FSTAB FOR BASE SYSTEM\n\n  # x\n": false, "#\n tmpfs /x tmpfs\n": true, "tmpfs /x tmpfs": true} {
		if listsMounts(text) != want {
			t.Errorf("listsMounts(%q) = %v", text, !want)
		}
	}
}

func TestIsNative(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, data, 0o700); err != nil {
			t.Fatal(err)
		}
		return p
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	data[18] ^= 0x40 // the machine
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for program, want := range map[string]bool{
		self: true, write("other", data): false, write("script", []byte("#!/bin/sh\n")): true, pipe: true, dir + "/missing": false,
	} {
		if got := isNative(program); got != want {
			t.Errorf("%s: %v", program, got)
		}
	}
}
