package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
	"github.com/tc-hib/winres"
	"github.com/tc-hib/winres/version"
	"gopkg.in/yaml.v3"
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

// TestManifests has archives of some targets, and reads what is said of them.
func TestManifests(t *testing.T) {
	out := t.TempDir()
	r := &releaser{out: out, version: "1.2.3", at: time.Unix(1_700_000_000, 0).UTC()}
	for _, target := range []target{{"linux", "amd64"}, {"darwin", "arm64"}, {"windows", "arm64"}} {
		if err := os.WriteFile(filepath.Join(out, r.archive(target)+target.suffix()), []byte(target.os), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.index(); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	const base = homepage + "/releases/download/v1.2.3/"
	formula := read("lsub.rb")
	for _, want := range []string{"on_macos", "on_linux", "on_arm", `url "` + base + `lsub-1.2.3-darwin-arm64.tar.gz"`, `sha256 "` + fmt.Sprintf("%x", sha256.Sum256([]byte("darwin"))) + `"`, `version "1.2.3"`} {
		if !strings.Contains(formula, want) {
			t.Errorf("the formula lacks %s:\n%s", want, formula)
		}
	}
	if strings.Contains(formula, "windows") {
		t.Errorf("the formula has Windows:\n%s", formula)
	}
	var scoop struct {
		Version      string
		Architecture map[string]struct{ URL, Hash string }
	}
	if err := json.Unmarshal([]byte(read("lsub.json")), &scoop); err != nil {
		t.Fatal(err)
	}
	if a := scoop.Architecture["arm64"]; scoop.Version != "1.2.3" || len(scoop.Architecture) != 1 || a.URL != base+"lsub-1.2.3-windows-arm64.zip" {
		t.Errorf("Scoop's manifest has %+v", scoop)
	}
	var winget struct {
		PackageVersion string `yaml:"PackageVersion"`
		Installers     []struct {
			Architecture    string `yaml:"Architecture"`
			InstallerSha256 string `yaml:"InstallerSha256"`
		} `yaml:"Installers"`
	}
	if err := yaml.Unmarshal([]byte(read("lsub.lsub.installer.yaml")), &winget); err != nil {
		t.Fatal(err)
	}
	if winget.PackageVersion != "1.2.3" || len(winget.Installers) != 1 || winget.Installers[0].InstallerSha256 != fmt.Sprintf("%X", sha256.Sum256([]byte("windows"))) {
		t.Errorf("winget's manifest has %+v", winget)
	}
	for _, name := range []string{"lsub.lsub.yaml", "lsub.lsub.locale.en-US.yaml"} {
		if err := yaml.Unmarshal([]byte(read(name)), &map[string]any{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	before := read(sumsFile)
	if err := r.index(); err != nil || read(sumsFile) != before || strings.Contains(before, sumsFile) || !strings.Contains(before, "lsub.rb") {
		t.Errorf("the second index (%v) has the checksums\n%s\nthe first\n%s", err, read(sumsFile), before)
	}
}

// TestResources gives a program its resources, and reads them back.
func TestResources(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte("package main\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "p.exe")
	cmd := exec.Command("go", "build", "-o", program, filepath.Join(dir, "main.go"))
	cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := addResources(program, "1.2.3-rc.1", time.Unix(1_700_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := winres.LoadFromEXE(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if m := rs.Get(winres.RT_MANIFEST, winres.ID(1), english); !bytes.Equal(m, manifest) || xml.Unmarshal(m, new(any)) != nil {
		t.Errorf("the manifest is %s", m)
	}
	info, err := version.FromBytes(rs.Get(winres.RT_VERSION, winres.ID(1), english))
	if err != nil || info.FileVersion != [4]uint16{1, 2, 3, 0} || (*info.Table()[english])[version.ProductVersion] != "1.2.3-rc.1" {
		t.Errorf("the version is %+v (%v)", info, err)
	}
	if _, err := rs.GetIcon(winres.ID(1)); err != nil {
		t.Errorf("the icon: %v", err)
	}
	img := drawIcon(32)
	if _, _, _, corner := img.At(0, 0).RGBA(); corner != 0 {
		t.Error("the icon's corner is not clear")
	}
	if r, g, b, a := img.At(16, 8).RGBA(); a != 0xffff || r > g || g > b {
		t.Errorf("the tile has the color %x %x %x %x", r, g, b, a)
	}
}
