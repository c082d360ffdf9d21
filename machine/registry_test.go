package machine

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lsub/lsub/hint"
)

// openTest opens a machine of its own; what it logs goes to the buffer.
func openTest(t *testing.T) (*Machine, *bytes.Buffer) {
	t.Helper()
	var logged bytes.Buffer
	m, err := Open(Config{
		Profile: "default", Version: "1.0",
		Paths:  Paths{Home: t.TempDir(), Runtime: shortDir(t), Cache: t.TempDir()},
		Logger: slog.New(slog.NewTextHandler(&logged, nil)),
	})
	if err == nil {
		err = m.MakeDir()
	}
	if err != nil {
		t.Fatal(err)
	}
	return m, &logged
}

// shortDir is a directory whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lsub-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestRegistryWriters(t *testing.T) {
	m, _ := openTest(t)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			name := fmt.Sprintf("d%02d", i)
			err := m.Update(t.Context(), func(r *Registry) error { return r.Add(Distro{ID: NewID(name), Name: name}) })
			if err != nil {
				t.Error(err)
			}
			if _, err := m.Registry(); err != nil { // whole at any moment
				t.Error(err)
			}
		})
	}
	wg.Wait()
	r, err := m.Registry()
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Distros) != 50 || r.Default != r.Distros[0].ID {
		t.Errorf("%d distros, default %q", len(r.Distros), r.Default)
	}
	left, _ := filepath.Glob(filepath.Join(m.Dir(), ".*"))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestRegistryDefault(t *testing.T) {
	r := &Registry{}
	if _, err := r.DefaultDistro(); err == nil || hint.Of(err) == "" {
		t.Errorf("empty: %v", err)
	}
	for _, name := range []string{"one", "two", "three"} {
		if err := r.Add(Distro{ID: name, Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	want := func(name string) {
		t.Helper()
		if d, err := r.DefaultDistro(); err != nil || d.Name != name {
			t.Errorf("default %v, %v, want %s", d, err, name)
		}
	}
	want("one")
	r.Remove("two")
	want("one")
	r.Remove("one")
	want("three")
	if d, err := r.Find("THREE"); err != nil || d.Name != "three" {
		t.Errorf("Find: %v, %v", d, err)
	}
	if err := r.Add(Distro{ID: "x", Name: "Three"}); err == nil {
		t.Error("a name was taken twice")
	}
}

func TestUpdateFails(t *testing.T) {
	m, _ := openTest(t)
	why := errors.New("no")
	if err := m.Update(t.Context(), func(r *Registry) error { r.Default = "x"; return why }); err != why {
		t.Errorf("Update = %v", err)
	}
	if r, err := m.Registry(); err != nil || r.Default != "" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestRegistryFile(t *testing.T) {
	for name, c := range map[string]struct{ text, err, logged string }{
		"unknown keys": {
			text:   "{\n \"version\": 1,\n \"distros\": [\n  {\"id\": \"a\",\n   \"mood\": {\"x\": [1]}}\n ],\n \"later\": 1\n}",
			logged: "registry.json:5",
		},
		"no JSON":     {text: "{\n\n oops", err: "registry.json:3: invalid character"},
		"wrong types": {text: "{\n \"distros\": 5}", err: "registry.json:2: json: cannot unmarshal number"},
		"newer":       {text: `{"version": 2, "distros": 5}`, err: "format 2 is newer"},
		"cut off":     {text: `{"version": 1, "distros": [{"id"`, err: "registry.json:1: unexpected end"},
		"empty":       {text: "", err: "registry.json:1: unexpected end"},
	} {
		t.Run(name, func(t *testing.T) {
			m, logged := openTest(t)
			if err := os.WriteFile(m.path("registry.json"), []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := m.Registry()
			switch {
			case c.err == "" && err != nil, c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("error %v, want %q", err, c.err)
			case err != nil && hint.Of(err) == "":
				t.Error("no hint")
			}
			if !strings.Contains(logged.String(), c.logged) {
				t.Errorf("logged %q, want %q", logged, c.logged)
			}
			if n := strings.Count(logged.String(), "\n"); c.logged != "" && n != 2 {
				t.Errorf("%d warnings, want 2: %s", n, logged)
			}
		})
	}
}

func TestRegistryBackup(t *testing.T) {
	m, _ := openTest(t)
	for _, id := range []string{"a", "b"} {
		if err := m.Update(t.Context(), func(r *Registry) error { return r.Add(Distro{ID: id, Name: id}) }); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(m.path("registry.json.old"))
	if err != nil || !strings.Contains(string(old), `"a"`) || strings.Contains(string(old), `"b"`) {
		t.Errorf("%s, %v", old, err)
	}
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"debian", "Debian-12.5_x", "9front", strings.Repeat("a", 63)} {
		if err := CheckName("distro", good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", ".", "..", "-x", "_x", "a b", "a/b", `a\b`, "é", "a\x00", "a\n", strings.Repeat("a", 64)} {
		if err := CheckName("distro", bad); err == nil || hint.Of(err) == "" {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestNewID(t *testing.T) {
	var ids []string
	for _, name := range []string{"Debian", "Debian", "a.b_c", strings.Repeat("x", 63)} {
		id := NewID(name)
		if strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || len(id) > 63 || slices.Contains(ids, id) {
			t.Errorf("%q gives %q", name, id)
		}
		ids = append(ids, id)
	}
}

func TestDefaultMemory(t *testing.T) {
	for host, want := range map[int64]int64{1 << 30: 512 << 20, 4 << 30: 2 << 30, 64 << 30: 8 << 30, 3<<30 + 12345: 1536 << 20} {
		if got, err := DefaultMemory(host); got != want || err != nil {
			t.Errorf("%d: %d, %v, want %d", host, got, err, want)
		}
	}
	if _, err := DefaultMemory(512 << 20); err == nil || hint.Of(err) == "" {
		t.Errorf("a tiny host: %v", err)
	}
	if host, err := HostMemory(); err != nil || host < 1<<28 {
		t.Errorf("HostMemory = %d, %v", host, err)
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	os.WriteFile(path, []byte("one\ntwo\x1b[2J\nthree\n\n"), 0o600)
	for _, c := range []struct {
		lines  int
		offset int64
		want   string
	}{{2, 0, "two?[2J\nthree"}, {9, 0, "one\ntwo?[2J\nthree"}, {9, 4, "two?[2J\nthree"}, {9, 100, ""}} {
		if got := Tail(path, c.lines, c.offset); got != c.want {
			t.Errorf("Tail(%d, %d) = %q, want %q", c.lines, c.offset, got, c.want)
		}
	}
	if got := Tail(path+"x", 1, 0); got != "" {
		t.Error(got)
	}
}
