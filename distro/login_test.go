package distro

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/lsub/lsub/machine"
)

// TestLoginItem wants the item to find the same state without the shell's variables.
func TestLoginItem(t *testing.T) {
	home := t.TempDir()
	t.Setenv("LSUB_HOME", "")
	usual, err := machine.DefaultPaths(withoutHome)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ home, flag string }{{home, "--home=" + home}, {usual.Home, ""}} {
		paths := machine.Paths{Home: tc.home}
		m, err := machine.Open(machine.Config{Profile: "work", Paths: paths})
		if err != nil {
			t.Fatal(err)
		}
		item, err := New(Config{Machine: m, Paths: paths}).loginItem(&machine.Distro{ID: "debian-1", Name: "Debian"})
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"--profile=work", tc.flag, "start", "Debian"}
		if tc.flag == "" {
			want = slices.Delete(want, 1, 2)
		}
		if !slices.Equal(item.Args, want) || !filepath.IsAbs(item.Program) || item.ID != "debian-1" {
			t.Errorf("%+v, want the arguments %v", item, want)
		}
	}
}
