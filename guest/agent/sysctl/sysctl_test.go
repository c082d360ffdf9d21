package sysctl

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestFiles(t *testing.T) {
	dirs := map[string][]string{
		"/etc/sysctl.d":     {"README", "99-sysctl.conf", "50-default.conf"},
		"/run/sysctl.d":     {"60-run.conf"},
		"/usr/lib/sysctl.d": {"50-default.conf", "10-first.conf"},
	}
	got := Files(func(dir string) []string { return dirs[dir] })
	want := []string{"/usr/lib/sysctl.d/10-first.conf", "/etc/sysctl.d/50-default.conf", "/run/sysctl.d/60-run.conf", "/etc/sysctl.d/99-sysctl.conf"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestParse(t *testing.T) {
	got := Parse([][]byte{
		[]byte("# a comment\n; another\n\nvm.max_map_count=65530\n  kernel.printk =  4\t4 1 7 \n-net/ipv4/ip_forward = 0\nnonsense\n=1\n"),
		[]byte("vm.max_map_count = 262144\nnet.ipv4.conf.*.rp_filter = 2\n-net.ipv4.conf.all.rp_filter\nnet/ipv4/conf/eth0.1/forwarding=1\na b=1\nempty ="),
	})
	want := map[string]string{
		"vm.max_map_count": "262144", "kernel.printk": "4 4 1 7", "net.ipv4.ip_forward": "0", "net.ipv4.conf.eth0/1.forwarding": "1", "empty": "",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestShared(t *testing.T) {
	for _, c := range []struct {
		name             string
		shared, isolated bool
	}{
		{"vm.max_map_count", true, true},
		{"net.ipv4.ip_forward", true, false},
		{"kernel.hostname", false, false},
		{"kernel.sem", false, false},
		{"kernel.semantics", true, true},
		{"fs.mqueue.msg_max", false, false},
		{"fs.inotify.max_user_watches", true, true},
	} {
		if got := Shared(c.name, false); got != c.shared {
			t.Errorf("%s: shared %v", c.name, got)
		}
		if got := Shared(c.name, true); got != c.isolated {
			t.Errorf("%s of an isolated distro: shared %v", c.name, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("a.b = 1\n-c/d=2\r\n#x\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		settings := Parse([][]byte{text})
		if len(settings) > maxSettings {
			t.Errorf("%d settings", len(settings))
		}
		for name, value := range settings {
			if name == "" || strings.ContainsAny(name+value, "\n") {
				t.Errorf("%q = %q", name, value)
			}
		}
	})
}
