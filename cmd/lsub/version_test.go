package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/lsub/lsub/images/guestimage"
)

// TestVersion wants the commit, and what is embedded: tests may have no guest.
func TestVersion(t *testing.T) {
	commit = "0123abcd"
	defer func() { commit = "" }()
	var out bytes.Buffer
	a := &app{backend: fakeBackend(), stdout: &out}
	if err := a.printVersion(false); err != nil {
		t.Fatal(err)
	}
	want := "\ncommit 0123abcd\n"
	if name, m, err := guestimage.Embedded(); err == nil {
		want += "kernel " + m.Kernel + "\nguest  " + name + ", of Debian " + m.Suite + "\n"
	}
	if !strings.HasSuffix(out.String(), want) {
		t.Errorf("it says\n%s\nwant at the end %q", &out, want)
	}
}
