package main

import (
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCanRunVMs(t *testing.T) {
	for text, want := range map[string]bool{
		"processor\t: 0\nflags\t\t: fpu svm nx\n\nprocessor\t: 1\n": true,
		"flags\t\t: fpu vmx\nvmx flags\t: vnmi\n":                   true,
		"flags\t\t: fpu nx\nbugs\t: svm\n":                          false,
		"Features\t: fp asimd\n":                                    false,
		"":                                                          false,
	} {
		if got := canRunVMs(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

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
