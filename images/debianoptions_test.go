package images

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lsub/lsub/hint"
)

func TestDebianRef(t *testing.T) {
	for name, want := range map[string]string{
		"debian":                                       "debian:trixie",
		"Debian:12":                                    "debian:bookworm",
		"debian?include=git":                           "debian:trixie?include=git",
		"debian:sid?variant=standard":                  "debian:sid?variant=standard",
		"debian:13?variant=minbase":                    "debian:trixie",
		"debian?variant=buildd&include=bb,aa,bb":       "debian:trixie?include=aa,bb&variant=buildd",
		"debian?include=g++,libstdc++6,python3.13,0ad": "debian:trixie?include=0ad,g++,libstdc++6,python3.13",
		"debian:sid?check-valid-until=no&include=git":  "debian:sid?include=git&check-valid-until=no",
		"debian:sid?check-valid-until=yes":             "debian:sid",
		"debian?include=GIT":                           "debian:trixie?include=git",
	} {
		ref, err := ParseRef(name)
		if err != nil || ref.String() != want {
			t.Errorf("ParseRef(%q) = %v, %v; want %s", name, ref, err, want)
			continue
		}
		if again, err := ParseRef(ref.String()); err != nil || again != ref {
			t.Errorf("ParseRef(%q) = %v, %v", ref, again, err)
		}
	}
	for _, tt := range []struct{ name, err, hint string }{
		{"debian:potato?include=git", `no Debian suite "potato" is known`, "known are debian:trixie"},
		{"debian?", `a Debian image has no option ""`, "there are include, variant and check-valid-until"},
		{"debian?packages=git", `a Debian image has no option "packages"`, "there are include, variant and check-valid-until"},
		{"debian?variant=tiny", `no variant "tiny" of Debian is known`, "known are minbase, buildd, important, standard"},
		{"debian?variant", `no variant "" of Debian is known`, "known are"},
		{"debian?include=", `"" cannot be the name of a package`, "name packages as in include=git,curl"},
		{"debian?include=git,,curl", `"" cannot be the name of a package`, ""},
		{"debian?include=git curl", `"git curl" cannot be the name of a package`, ""},
		{"debian?include=--help", `"--help" cannot be the name of a package`, ""},
		{"debian?include=systemd-", `"systemd-" cannot be the name of a package`, ""}, // apt would remove it
		{"debian?include=git/sid", `"git/sid" cannot be the name of a package`, ""},
		{"debian?check-valid-until=never", `check-valid-until is yes or no, not "never"`, ""},
		{"debian?include=*", `"*" cannot be the name of a package`, ""},
		{"debian?include=a1&include=b1", `option "include" of the image is given twice`, ""},
		{"debian?include=" + strings.Repeat("aa,", 500) + "aa", "501 packages are more than an image can include by name, which is 500", ""},
		{"ubuntu?include=git", `no image "ubuntu?include=git" is known`, "known are"},
	} {
		_, err := ParseRef(tt.name)
		if err == nil || err.Error() != tt.err || !strings.HasPrefix(hint.Of(err), tt.hint) {
			t.Errorf("ParseRef(%q): %v (%s), want %s (%s)", tt.name, err, hint.Of(err), tt.err, tt.hint)
		}
	}
}

// Images with options are images of their own, beside that of the suite.
func TestDebianOptions(t *testing.T) {
	runs := fakeBootstrap(t, `printf '%s\n' "$@" >"$RUNS.args"`)
	cache := t.TempDir()
	pull := func(name string) *Image {
		t.Helper()
		ref, err := ParseRef(name)
		if err != nil {
			t.Fatal(err)
		}
		img, err := (&Debian{CacheDir: cache}).Pull(t.Context(), ref, nil)
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	wantArgs := func(want ...string) {
		t.Helper()
		args, err := os.ReadFile(os.Getenv("RUNS") + ".args")
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(string(args), w) {
				t.Errorf("mmdebstrap has no argument with %q: %s", w, args)
			}
		}
	}
	pull("debian")
	wantArgs("--variant=minbase\n", "tzdata\n", "\ntrixie\n")
	img := pull("debian?include=git,curl&variant=standard")
	if img.Name != "debian:trixie?include=curl,git&variant=standard" || img.Distro != "debian" {
		t.Errorf("%+v", img)
	}
	wantArgs("--variant=standard\n", "tzdata,curl,git\n", "\ntrixie\n")
	pull("debian?variant=standard&include=curl,git")
	pull("debian")
	if runs() != 2 {
		t.Errorf("%d builds, want 2", runs())
	}
	pull("debian?include=git")
	if runs() != 3 {
		t.Errorf("%d builds, want 3", runs())
	}
	pull("debian?check-valid-until=no")
	wantArgs(`--aptopt=Acquire::Check-Valid-Until "false"`)
	// What a maker of one left is no other one's to remove.
	records, _ := filepath.Glob(filepath.Join(cache, "images", "*.json"))
	if len(records) != 4 {
		t.Fatalf("records: %v", records)
	}
	for _, a := range records {
		for _, b := range records {
			keyA, keyB := strings.TrimSuffix(filepath.Base(a), ".json"), strings.TrimSuffix(filepath.Base(b), ".json")
			if a != b && strings.HasPrefix(keyB, keyA) {
				t.Errorf("key %s begins %s", keyA, keyB)
			}
		}
	}
	if _, err := (&Debian{CacheDir: cache}).Pull(t.Context(), Ref{Source: "debian", Version: "trixie?include=../x"}, nil); err == nil {
		t.Error("a reference that ParseRef does not give was used")
	}
}

func TestDebianUnknownPackage(t *testing.T) {
	fakeBootstrap(t, "echo 'E: Unable to locate package gitt' >&2\necho \"E: Package 'x1' has no installation candidate\" >&2\necho 'E: mmdebstrap failed' >&2\nexit 25")
	ref, err := ParseRef("debian?include=gitt,x1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = (&Debian{CacheDir: t.TempDir()}).Pull(t.Context(), ref, nil)
	const want = "image debian:trixie?include=gitt,x1: unable to locate package gitt, Package 'x1' has no installation candidate"
	if err == nil || err.Error() != want || !strings.HasPrefix(hint.Of(err), "look the name up") {
		t.Errorf("got %v (%s)", err, hint.Of(err))
	}
}

// Whatever is accepted is read again as the same, and is safe in an argument.
func FuzzDebianRef(f *testing.F) {
	f.Add("debian:12?include=git,curl&variant=standard")
	f.Add("debian?variant=&include=a-")
	f.Add("debian:sid?check-valid-until=no")
	f.Fuzz(func(t *testing.T, name string) {
		ref, err := ParseRef(name)
		if err != nil || ref.Source != "debian" {
			return
		}
		if again, err := ParseRef(ref.String()); err != nil || again != ref {
			t.Fatalf("%q gives %q, and that %q, %v", name, ref, again, err)
		}
		if strings.Trim(ref.Version, "abcdefghijklmnopqrstuvwxyz0123456789?=&,+.-") != "" {
			t.Fatalf("%q gives %q", name, ref)
		}
	})
}
