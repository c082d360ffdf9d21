package crossing

import (
	"fmt"
	"strings"
	"testing"
)

func TestPaths(t *testing.T) {
	dirs := []string{"/home/ann", "/srv/data"}
	name := func(dir string) string { return strings.TrimPrefix(dir, "/") }
	for _, c := range []struct{ host, guest string }{
		{"/home/ann", "/mnt/host/home/ann"}, {"/home/ann/a b/c", "/mnt/host/home/ann/a b/c"}, {"/srv/data/..x", "/mnt/host/srv/data/..x"},
		{"/home/anna", ""}, {"/home", ""}, {"/srv/data/../other", ""}, {"/", ""},
	} {
		if got, ok := ToGuest(c.host, dirs, name); got != c.guest || ok != (c.guest != "") {
			t.Errorf("%s is %q", c.host, got)
		}
		if c.guest != "" {
			if got, ok := ToHost(c.guest, dirs, name); got != c.host || !ok {
				t.Errorf("%s is %q", c.guest, got)
			}
		}
	}
	for _, guest := range []string{"/mnt/host", "/mnt/host/home/anna", "/home/ann", "/mnt/hosthome/ann"} {
		if got, ok := ToHost(guest, dirs, name); ok {
			t.Errorf("%s is %q", guest, got)
		}
	}
}

func TestVariables(t *testing.T) {
	for _, c := range []struct{ spec, want string }{
		{"", "[]"}, {"A", "[{A false false false}]"}, {"A/p:B/l:C/u:D/w:E/pu::F/uw", "[{A true false false} {B false true false} {C false false false} {D false false true} {E true false false} {F false false false}]"},
		{"A/x", "error"}, {"/p", "error"}, {"A/pl", "error"},
	} {
		all, err := Variables(c.spec)
		got := fmt.Sprint(all)
		if err != nil {
			got = "error"
		}
		if got != c.want {
			t.Errorf("%q: %s, want %s", c.spec, got, c.want)
		}
	}
}
