package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lsub/lsub/rootfs"
)

// Whatever comes twice in an archive, and however many make it, the last one counts:
// entries of few names in random order, compared with what one after the other gives.
func TestUnpackKeepsOrder(t *testing.T) {
	for seed := range uint64(10) {
		random := rand.New(rand.NewPCG(seed, 0))
		entries := append(append([]entry{}, system...), dir("d"), dir("d/e"))
		want := map[string]string{} // by name: "file" and its bytes, or "link" and its target
		for i := range 120 {
			name := []string{"a", "b", "d/a", "d/b", "d/e/a", "d/e/b"}[random.IntN(6)]
			switch random.IntN(5) {
			case 0, 1:
				body := fmt.Sprint("small ", i)
				entries, want[name] = append(entries, file(name, body)), "file"+body
			case 2:
				body := strings.Repeat(fmt.Sprint(i, " "), wholeFile/3)
				entries, want[name] = append(entries, file(name, body)), "file"+body
			case 3:
				target := fmt.Sprint("to/", i)
				entries, want[name] = append(entries, link(tar.TypeSymlink, name, target)), "link"+target
			case 4:
				of := "d/a"
				if want[of] != "" && name != of {
					entries, want[name] = append(entries, link(tar.TypeLink, name, of)), want[of]
				}
			}
		}
		root := t.TempDir()
		if err := Unpack(root, bytes.NewReader(archive(t, entries...)), &rootfs.State{}); err != nil {
			t.Fatal(err)
		}
		for name, w := range want {
			got := ""
			if target, err := os.Readlink(filepath.Join(root, name)); err == nil {
				got = "link" + target
			} else if b, err := os.ReadFile(filepath.Join(root, name)); err == nil {
				got = "file" + string(b)
			}
			if got != w {
				t.Errorf("seed %d: %s is %.40q, want %.40q", seed, name, got, w)
			}
		}
	}
}

// What goes wrong in one of the many files ends the whole, and is told with its name.
func TestUnpackFailsLate(t *testing.T) {
	entries := append([]entry{}, system...)
	for i := range 2000 {
		entries = append(entries, file(fmt.Sprint("before", i), "x"))
	}
	entries = append(entries, dir("x"), file("x", "a file"))
	for i := range 200 {
		entries = append(entries, file(fmt.Sprint("after", i), strings.Repeat("y", wholeFile+1)))
	}
	err := Unpack(t.TempDir(), bytes.NewReader(archive(t, entries...)), &rootfs.State{})
	if !errors.Is(err, ErrBad) || !strings.Contains(err.Error(), "unpack x: ") {
		t.Errorf("err = %v", err)
	}
}

// A directory that follows a file of its name, and files in it, stand in its place
// also where the file is not made yet.
func TestUnpackFolderOverFile(t *testing.T) {
	for range 5 {
		root := t.TempDir()
		entries := append(append([]entry{}, system...), file("x", "a file"), dir("x"), file("x/y", "in it"))
		if err := Unpack(root, bytes.NewReader(archive(t, entries...)), &rootfs.State{}); err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(filepath.Join(root, "x/y")); string(b) != "in it" {
			t.Errorf("x/y = %q", b)
		}
		entries = append(append([]entry{}, system...), file("x", "a file"), file("x/y/z", "in it"))
		if err := Unpack(t.TempDir(), bytes.NewReader(archive(t, entries...)), &rootfs.State{}); err == nil {
			t.Error("a file in a file is accepted")
		}
	}
}
