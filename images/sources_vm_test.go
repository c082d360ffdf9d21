package images

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lsub/lsub/rootfs"
)

// TestRealSources has every kind of source give a real Debian tree, and
// compares what comes with it.
func TestRealSources(t *testing.T) {
	needBootstrap(t)
	user, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	ref, err := ParseRef("debian")
	if err != nil {
		t.Fatal(err)
	}
	img, err := (&Debian{CacheDir: filepath.Join(user, "lsub")}).Pull(t.Context(), ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := img.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	want := contents(t, bytes.NewReader(plain))
	t.Logf("%d files, %d bytes", len(want), len(plain))
	all := append(suppliers(), squashSupplier("zstd"), squashSupplier("lz4"))
	for _, s := range all {
		if strings.HasSuffix(s.name, ".bz2") {
			continue // bzip2 takes more than a minute for it; TestSources has it
		}
		t.Run(s.name, func(t *testing.T) {
			start := time.Now()
			img, err := s.pull(t, plain, t.TempDir(), 0)
			if err != nil {
				t.Fatal(err)
			}
			pulled := time.Since(start)
			r, err := img.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			want := want
			if strings.Contains(s.name, "squashfs") { // which has no place for access lists
				want = maps.Clone(want)
				for name, line := range want {
					want[name] = accessLists.ReplaceAllString(line, "")
				}
			}
			compareContents(t, contents(t, r), want)
			t.Logf("packed and pulled in %v, read in %v", pulled, time.Since(start)-pulled)
		})
	}
}

var accessLists = regexp.MustCompile(` SCHILY\.xattr\.system\.posix_acl_[a-z]+="[^"]*"`)

// squashSupplier is a simplestreams server that has squashfs images alone.
func squashSupplier(method string) supplier {
	return supplier{"simplestreams squashfs " + method, false, func(t *testing.T, plain []byte, cache string, maxBytes int64) (*Image, error) {
		program, err := exec.LookPath("sqfstar")
		if err != nil {
			t.Fatalf("%v: ./task setup installs it", err)
		}
		path := filepath.Join(t.TempDir(), "x.squashfs")
		cmd := exec.CommandContext(t.Context(), program, "-comp", method, "-quiet", "-no-progress", path)
		cmd.Stdin = bytes.NewReader(plain)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("sqfstar: %v: %s", err, out)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return pullStreams(t, "squashfs", data, cache, maxBytes)
	}}
}

// contents describes each file of an archive but its root, whatever the order
// and whichever of a file's names comes first.
func contents(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	files, first, groups := map[string]string{}, map[string]string{}, map[string][]string{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name, err := rootfs.Clean(h.Name)
		if err != nil {
			t.Fatal(err)
		}
		if name == "." {
			continue
		}
		if h.Typeflag == tar.TypeLink {
			target, _ := rootfs.Clean(h.Linkname)
			first[name] = target
			groups[target] = append(groups[target], name)
			continue
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, tr); err != nil {
			t.Fatal(err)
		}
		mode := h.Mode & 0o7777
		if h.Typeflag == tar.TypeSymlink {
			mode = 0o777
		}
		line := fmt.Sprintf("%c %o %d:%d %d:%d %d %q %d %x", h.Typeflag, mode, h.Uid, h.Gid, h.Devmajor, h.Devminor, h.ModTime.Unix(), h.Linkname, h.Size, sum.Sum(nil))
		for _, k := range slices.Sorted(maps.Keys(h.PAXRecords)) {
			if strings.HasPrefix(k, "SCHILY.xattr.") {
				line += fmt.Sprintf(" %s=%q", k, h.PAXRecords[k])
			}
		}
		files[name] = line
	}
	for name, target := range first {
		files[name] = files[target]
	}
	for target, names := range groups {
		names = append(names, target)
		slices.Sort(names)
		for _, name := range names {
			files[name] += fmt.Sprintf(" also %q", names)
		}
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Fatal(err)
	}
	return files
}

func compareContents(t *testing.T, got, want map[string]string) {
	t.Helper()
	wrong := 0
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			if wrong++; wrong < 10 {
				t.Errorf("%s: got %s, want %s", name, got[name], want[name])
			}
		}
	}
	if len(got) != len(want) || wrong > 0 {
		t.Errorf("%d of %d files are wrong; there are %d", wrong, len(want), len(got))
	}
}
