package main

import (
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseDevices(t *testing.T) {
	got, err := parseDevices("# Device nodes to trigger on-demand module loading.\ntun net/tun c10:200\n\nfloppy fd0 b2:0\n")
	want := []deviceNode{
		{"/dev/net/tun", unix.S_IFCHR, unix.Mkdev(10, 200)},
		{"/dev/fd0", unix.S_IFBLK, unix.Mkdev(2, 0)},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	for _, bad := range []string{"tun", "tun net/tun", "tun net/tun c10", "tun net/tun 10:200"} {
		if got, err := parseDevices(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, got)
		}
	}
}
