package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// planted are packages that use the binding of Virtualization.framework, with errors that
// only somebody who knows the binding's types can see: what is found on arm64 and on amd64.
var planted = []struct{ name, body, arm64, amd64 string }{
	{"correct", `func f() error { _, err := vz.NewVirtioEntropyDeviceConfiguration(); return err }`, "", ""},
	{"argument", `func f() { vz.NewLinuxBootLoader(4711) }`, "cannot use 4711", "cannot use 4711"},
	{"method", `func f(vm *vz.VirtualMachine) { vm.Launch() }`, "vm.Launch undefined", "vm.Launch undefined"},
	{"results", `func f(vm *vz.VirtualMachine) { a, b := vm.Stop(); _, _ = a, b }`, "returns 1 value", "returns 1 value"},
	{"implements", `var _ interface{ CloseWrite() error } = (*vz.VirtioSocketConnection)(nil)`, "missing method CloseWrite", "missing method CloseWrite"},
	{"onlyarm64", `func f(vm *vz.VirtualMachine) error { return vm.SaveMachineStateToPath("x") }`, "", "vm.SaveMachineStateToPath undefined"},
}

// TestPlanted checks a module that requires what the real one does.
func TestPlanted(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join("..", "..", name))
		if err != nil {
			t.Fatal(err)
		}
		write(name, string(b))
	}
	for _, p := range planted {
		file := "code.go"
		if p.name == "results" { // tests are checked too
			file = "code_test.go"
		}
		write(p.name+"/doc.go", "// Package "+p.name+" may have an error.\npackage "+p.name+"\n")
		write(p.name+"/"+file, "//go:build darwin && cgo\n\npackage "+p.name+"\n\nimport vz \"github.com/Code-Hex/vz/v3\"\n\n"+p.body+"\n")
	}
	for _, arch := range []string{"arm64", "amd64"} {
		problems, _, err := check(dir, arch, []string{"./..."})
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]string{}
		for _, problem := range problems {
			text := problem.Error()
			rel := strings.TrimPrefix(text, dir+string(filepath.Separator))
			name, _, _ := strings.Cut(filepath.ToSlash(rel), "/")
			found[name] += text
		}
		for _, p := range planted {
			want := p.arm64
			if arch == "amd64" {
				want = p.amd64
			}
			if got := found[p.name]; (got == "") != (want == "") || !strings.Contains(got, want) {
				t.Errorf("%s on %s: found %q, want %q", p.name, arch, got, want)
			}
			delete(found, p.name)
		}
		if len(found) > 0 {
			t.Errorf("%s: found %v where nothing was planted", arch, found)
		}
	}
}
