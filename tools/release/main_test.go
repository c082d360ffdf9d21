package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"debug/buildinfo"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
)

// TestPack packs the same files twice, at two times and in two places, and looks inside.
func TestPack(t *testing.T) {
	at := time.Unix(1_700_000_000, 0).UTC()
	for _, ext := range []string{".tar.gz", ".zip"} {
		var packed [2][]byte
		for i := range packed {
			dir := t.TempDir()
			program := filepath.Join(dir, "program")
			if err := os.WriteFile(program, bytes.Repeat([]byte("x"), 100_000), os.FileMode(0o600+i)); err != nil {
				t.Fatal(err)
			}
			os.Chtimes(program, time.Now(), time.Unix(int64(i), 0))
			archive := filepath.Join(dir, "a"+ext)
			if err := pack(archive, "lsub-1", []file{{"lsub", program, 0o755}}, at); err != nil {
				t.Fatal(err)
			}
			packed[i], _ = os.ReadFile(archive)
		}
		if !bytes.Equal(packed[0], packed[1]) {
			t.Errorf("two %s archives of the same differ", ext)
		}
		var name string
		var mode os.FileMode
		if ext == ".zip" {
			r, err := zip.NewReader(bytes.NewReader(packed[0]), int64(len(packed[0])))
			if err != nil {
				t.Fatal(err)
			}
			name, mode = r.File[0].Name, r.File[0].Mode()
		} else {
			z, err := gzip.NewReader(bytes.NewReader(packed[0]))
			if err != nil {
				t.Fatal(err)
			}
			r := tar.NewReader(z)
			h, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(r); err != nil || len(b) != 100_000 {
				t.Errorf("%d bytes (%v)", len(b), err)
			}
			name, mode = h.Name, h.FileInfo().Mode()
		}
		if name != "lsub-1/lsub" || mode != 0o755 {
			t.Errorf("%s holds %s with mode %v", ext, name, mode)
		}
	}
}

func TestBillOfMaterials(t *testing.T) {
	info := &buildinfo.BuildInfo{GoVersion: "go1.26.8", Deps: []*debug.Module{
		{Path: "example.com/a", Version: "v1.0.0", Sum: "h1:x"},
		{Path: "example.com/b", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/c", Version: "v2.0.0"}},
	}}
	b, err := billOfMaterials("1.0", target{"linux", "amd64"}, info, guestManifest{Arch: "amd64", Suite: "trixie", Kernel: "6.12", Packages: map[string]string{"kmod": "34"}})
	if err != nil {
		t.Fatal(err)
	}
	var bom cyclonedx.BOM
	if err := cyclonedx.NewBOMDecoder(bytes.NewReader(b), cyclonedx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range *bom.Components {
		names = append(names, c.PackageURL)
	}
	want := "pkg:golang/std@go1.26.8 pkg:golang/example.com/a@v1.0.0 pkg:golang/example.com/c@v2.0.0 pkg:deb/debian/kmod@34?arch=amd64&distro=trixie"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("it lists %s\nwant %s", got, want)
	}
	if strings.Contains(string(b), "serialNumber") || strings.Contains(string(b), "timestamp") {
		t.Error("two bills of the same would differ")
	}
}

func TestTargets(t *testing.T) {
	for _, bad := range []string{"", "linux", "linux/386", "plan9/amd64"} {
		if _, err := parseTarget(bad); err == nil {
			t.Errorf("the target %q was taken", bad)
		}
	}
}
