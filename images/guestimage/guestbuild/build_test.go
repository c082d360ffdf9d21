package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestReproducible builds a real guest twice from the same packages, each time
// from nothing else.
func TestReproducible(t *testing.T) {
	if os.Getenv("LSUB_TEST_VM") == "" {
		t.Skip("takes Debian packages from the network and half a minute; set LSUB_TEST_VM=1")
	}
	caches := [2]string{t.TempDir(), t.TempDir()}
	outs := [2]string{t.TempDir(), t.TempDir()}
	for i := range caches {
		b := &builder{arch: arches["amd64"], suite: "trixie", cache: caches[i], say: t.Logf}
		if i == 1 { // the same packages
			trees, err := filepath.Glob(filepath.Join(caches[0], "tree-*"))
			if err != nil || len(trees) != 1 {
				t.Fatalf("found %d trees, %v", len(trees), err)
			}
			if err := os.Rename(trees[0], filepath.Join(caches[1], filepath.Base(trees[0]))); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.build(t.Context(), programsOf{"./testdata/init", "./testdata/init"}, outs[i], false); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"kernel.zst", "initrd.zst", "system.zst", "manifest.json"} {
		a, err := os.ReadFile(filepath.Join(outs[0], name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(outs[1], name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs between two builds", name)
		}
	}
}
