package distro

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestReplaceFile writes files in both ways: with and without a name before
// they are whole.
func TestReplaceFile(t *testing.T) {
	t.Run("usual", func(t *testing.T) { testReplace(t, replaceFile, hasUnnamed(t)) })
	t.Run("named", func(t *testing.T) { testReplace(t, replaceNamed, false) })
}

func testReplace(t *testing.T, replace func(string, func(*os.File) error) error, unnamed bool) {
	broken := errors.New("broken")
	for _, before := range []string{"", "old"} {
		for _, fails := range []bool{false, true} {
			dir := t.TempDir()
			path := filepath.Join(dir, "file")
			if before != "" {
				if err := os.WriteFile(path, []byte(before), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			err := replace(path, func(f *os.File) error {
				if _, err := f.WriteString("new"); err != nil {
					return err
				}
				entries, err := os.ReadDir(dir)
				want := len(before) / 3 // the old one
				if !unnamed {
					want++
				}
				if err != nil || len(entries) != want {
					t.Errorf("%d names while it is written, want %d; %v", len(entries), want, err)
				}
				if fails {
					return broken
				}
				return nil
			})
			want := "new"
			if fails {
				want = before
			}
			got, rerr := os.ReadFile(path)
			if fails != errors.Is(err, broken) || string(got) != want || rerr != nil && want != "" {
				t.Errorf("before %q, fails %v: got %q, %v, %v", before, fails, got, err, rerr)
			}
			entries, _ := os.ReadDir(dir)
			if n := len(entries); n > 1 || n == 1 && want == "" {
				t.Errorf("before %q, fails %v: left %v", before, fails, entries)
			}
			if info, err := os.Stat(path); err == nil && !fails && info.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
				t.Errorf("others may read it: %v", info.Mode())
			}
		}
	}
	if err := replace(filepath.Join(t.TempDir(), "none", "file"), func(*os.File) error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in no folder: %v", err)
	}
}

// hasUnnamed tells whether temporary folders can hold files without a name.
func hasUnnamed(t *testing.T) bool {
	f := openUnnamed(filepath.Join(t.TempDir(), "x"))
	if f == nil {
		return false
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return true
}
