package binfmt

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
)

// entries as a kernel shows them that has qemu-user-static's.
const (
	aarch64 = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\noffset 0\nmagic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n"
	x86     = "enabled\ninterpreter /usr/bin/qemu-x86_64-static\nflags: F\noffset 0\nmagic 7f454c4602010100000000000000000002003e00\nmask fffffffffffefe00fffffffffffffffffeffffff\n"
	byName  = "enabled\ninterpreter /bin/cat\nflags: \nextension .lsubtest\n"
)

func TestArches(t *testing.T) {
	other, entry := "arm64", aarch64
	if runtime.GOARCH == "arm64" {
		other, entry = "amd64", x86
	}
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string, want ...string) {
		t.Helper()
		if got := Arches(dir); !slices.Equal(got, append([]string{runtime.GOARCH}, want...)) {
			t.Errorf("%s: %v", when, got)
		}
	}
	check("nothing")
	write("status", "enabled\n")
	write("name", byName)
	write("broken", "enabled\nflags: F\noffset x\nmagic 7f\n")
	write("short", "enabled\nflags: F\noffset 255\nmagic 7f7f\n")
	check("others")
	write("qemu", "disabled"+entry[len("enabled"):])
	check("disabled")
	write("qemu", entry)
	check("enabled", other)
	if got := Arches(filepath.Join(dir, "missing")); len(got) != 1 {
		t.Errorf("not mounted: %v", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{aarch64, x86, byName} {
		f.Add(text)
	}
	head := header(machines["arm64"])
	f.Fuzz(func(t *testing.T, text string) {
		if f, ok := parse(text); ok {
			f.matches(head)
		}
	})
}
