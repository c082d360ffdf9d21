package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestRosettaFormat reads the line as the kernel does (Documentation/admin-guide/binfmt-misc.rst)
// and holds ELF headers against it.
func TestRosettaFormat(t *testing.T) {
	if len(rosettaFormat) >= 1920 {
		t.Errorf("the kernel takes 1919 bytes, not %d", len(rosettaFormat))
	}
	f := strings.Split(rosettaFormat, ":")
	if len(f) != 8 || f[0] != "" || f[2] != "M" || f[3] != "" {
		t.Fatalf("the line has the fields %q", f)
	}
	bytesOf := func(text string) []byte {
		s, err := strconv.Unquote(`"` + text + `"`)
		if err != nil {
			t.Fatal(err)
		}
		return []byte(s)
	}
	magic, mask := bytesOf(f[4]), bytesOf(f[5])
	if len(magic) != len(mask) {
		t.Fatalf("%d bytes of magic, %d of mask", len(magic), len(mask))
	}
	matches := func(head []byte) bool {
		for i := range magic {
			if (head[i]^magic[i])&mask[i] != 0 {
				return false
			}
		}
		return true
	}
	elf := func(class, abi, kind, machine byte) []byte {
		return []byte{0x7f, 'E', 'L', 'F', class, 1, 1, abi, 0, 0, 0, 0, 0, 0, 0, 0, kind, 0, machine, 0}
	}
	const exec, dyn, rel, x86, x8664, arm64 = 2, 3, 1, 3, 62, 183
	for _, c := range []struct {
		name string
		head []byte
		want bool
	}{
		{"a program", elf(2, 0, exec, x8664), true},
		{"a program of any address", elf(2, 0, dyn, x8664), true},
		{"a GNU program", elf(2, 3, dyn, x8664), true},
		{"an object file", elf(2, 0, rel, x8664), false},
		{"32 bits", elf(1, 0, exec, x86), false},
		{"arm64", elf(2, 0, dyn, arm64), false},
		{"a script", append([]byte("#!/bin/sh\n"), make([]byte, 20)...), false},
	} {
		if got := matches(c.head); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestHasVirtioFS(t *testing.T) {
	dir := t.TempDir()
	add := func(name, kind string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "device"), []byte(kind+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	look := func(want bool) {
		t.Helper()
		if got, err := hasVirtioFS(dir); got != want || err != nil {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
	look(false)
	add("virtio0", "0x0002")
	look(false)
	add("virtio1", "0x001a")
	look(true)
}
