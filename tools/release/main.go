// Command release makes what a release of lsub has: an archive for each target with the program
// and its guest, a bill of materials (CycloneDX) beside it, Linux' packages, and for all of them
// the manifests of package managers and the checksums.
//
//	go -C tools run ./release -C .. -out out/release linux/amd64 windows/amd64
//	go -C tools run ./release -C .. -out out/release index
//
// The second form makes manifests and checksums anew, of archives that come from several
// machines.
//
// The guests have to be built (guestbuild). The same sources and guests give the same bytes,
// wherever and whenever it runs. macOS' driver needs cgo, so targets of macOS can only be
// made on a Mac; elsewhere they are refused.
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	dir := flag.String("C", ".", "the sources' directory")
	out := flag.String("out", "out/release", "where the archives go, from there")
	flag.Parse()
	if err := release(*dir, *out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// target is a system and a processor, in Go's words.
type target struct{ os, arch string }

func parseTarget(s string) (target, error) {
	system, arch, ok := strings.Cut(s, "/")
	t := target{system, arch}
	if !ok || !slices.Contains([]string{"linux", "darwin", "windows"}, system) || !slices.Contains([]string{"amd64", "arm64"}, arch) {
		return t, fmt.Errorf("unknown target %q", s)
	}
	if system == "darwin" && runtime.GOOS != "darwin" {
		return t, fmt.Errorf("%s: macOS' driver needs cgo and codesign, so this target is made on a Mac", s)
	}
	return t, nil
}

func (t target) program() string {
	if t.os == "windows" {
		return "lsub.exe"
	}
	return "lsub"
}

func (t target) suffix() string {
	if t.os == "windows" {
		return ".zip"
	}
	return ".tar.gz"
}

func release(dir, out string, names []string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if !filepath.IsAbs(out) {
		out = filepath.Join(dir, out)
	}
	version, err := readVersion(filepath.Join(dir, "guest", "version.go"))
	if err != nil {
		return err
	}
	at, err := sourceTime(dir)
	if err != nil {
		return err
	}
	r := &releaser{dir: dir, out: out, version: version, at: at}
	if slices.Equal(names, []string{"index"}) {
		return r.index()
	}
	if r.commit, err = sourceCommit(dir); err != nil {
		return err
	}
	var targets []target
	for _, n := range names {
		t, err := parseTarget(n)
		if err != nil {
			return err
		}
		targets = append(targets, t)
	}
	if len(targets) == 0 {
		return errors.New("no target")
	}
	if err := errors.Join(os.RemoveAll(out), os.MkdirAll(out, 0o755)); err != nil {
		return err
	}
	for _, t := range targets {
		if err := r.make(t); err != nil {
			return fmt.Errorf("%s/%s: %w", t.os, t.arch, err)
		}
	}
	return r.index()
}

// releaser makes one release.
type releaser struct {
	dir, out string // of the sources and of what is made
	version  string
	commit   string
	at       time.Time // that all files have
}

// index writes what is said of all archives: manifests and checksums.
func (r *releaser) index() error {
	if err := r.writeManifests(); err != nil {
		return err
	}
	return writeSums(r.out)
}

// versionLine is in guest/version.go.
var versionLine = regexp.MustCompile(`const Version = "([^"]+)"`)

func readVersion(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	m := versionLine.FindSubmatch(b)
	if m == nil {
		return "", fmt.Errorf("%s has no version", file)
	}
	return string(m[1]), nil
}

// sourceTime is the time that all files of the archives have: SOURCE_DATE_EPOCH, else that of
// the last commit.
func sourceTime(dir string) (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		b, err := exec.Command("git", "-C", dir, "log", "-1", "--format=%ct").Output()
		if err != nil {
			return time.Time{}, fmt.Errorf("the time of the last commit: %w (or set SOURCE_DATE_EPOCH)", err)
		}
		text = strings.TrimSpace(string(b))
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return time.Unix(n, 0).UTC(), err
}

// sourceCommit is that of the sources: SOURCE_COMMIT, else the last one.
func sourceCommit(dir string) (string, error) {
	if c := os.Getenv("SOURCE_COMMIT"); c != "" {
		return c, nil
	}
	b, err := exec.Command("git", "-C", dir, "rev-parse", "HEAD").Output()
	if err != nil {
		return "", fmt.Errorf("the last commit: %w (or set SOURCE_COMMIT)", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// archive is the name of a target's archive, without its suffix.
func (r *releaser) archive(t target) string {
	return fmt.Sprintf("lsub-%s-%s-%s", r.version, t.os, t.arch)
}

// make makes one target's archive, packages and bill of materials.
func (r *releaser) make(t target) error {
	guest, err := readGuest(r.dir, t.arch)
	if err != nil {
		return err
	}
	name := r.archive(t)
	work, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	program := filepath.Join(work, t.program())
	if err := r.build(program, t); err != nil {
		return err
	}
	files := []file{{t.program(), program, 0o755}}
	for _, f := range []string{"LICENSE", "README.md", "CHANGELOG.md", "docs/install.md"} {
		files = append(files, file{filepath.Base(f), filepath.Join(r.dir, f), 0o644})
	}
	manual := filepath.Join(work, "lsub.1")
	if err := r.manual(manual); err != nil {
		return err
	}
	if t.os == "windows" {
		files = append(files, file{"completions/lsub.ps1", filepath.Join(r.dir, completions, "lsub.ps1"), 0o644})
	} else {
		files = append(files, file{"lsub.1", manual, 0o644})
		for _, shell := range []string{"bash", "fish", "zsh"} {
			files = append(files, file{"completions/lsub." + shell, filepath.Join(r.dir, completions, "lsub."+shell), 0o644})
		}
	}
	archive := name + t.suffix()
	if err := pack(filepath.Join(r.out, archive), name, files, r.at); err != nil {
		return err
	}
	if t.os == "linux" {
		if err := r.linuxPackages(program, manual, t); err != nil {
			return err
		}
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return err
	}
	bill, err := billOfMaterials(r.version, t, info, guest)
	if err != nil {
		return err
	}
	fmt.Println("release: made", archive)
	return os.WriteFile(filepath.Join(r.out, name+".cdx.json"), bill, 0o644)
}

// completions has the scripts of shells, which 'lsub completion' prints.
const completions = "cmd/lsub/completion"

// manual writes the manual page, as the program on this machine prints it.
func (r *releaser) manual(name string) error {
	cmd := exec.Command("go", "run", "./cmd/lsub", "man")
	cmd.Dir, cmd.Stderr = r.dir, os.Stderr
	cmd.Env = append(os.Environ(), "GOOS=", "GOARCH=", "GOFLAGS=")
	page, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("the manual page: %w", err)
	}
	return os.WriteFile(name, page, 0o644)
}

// build compiles lsub. Nothing of this machine gets into the program.
func (r *releaser) build(program string, t target) error {
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid= -X main.commit="+r.commit, "-o", program, "./cmd/lsub")
	cmd.Dir = r.dir
	cgo := "0"
	if t.os == "darwin" {
		cgo = "1"
	}
	cmd.Env = append(os.Environ(), "GOOS="+t.os, "GOARCH="+t.arch, "CGO_ENABLED="+cgo, "GOFLAGS=", "GOAMD64=v1", "GOARM64=v8.0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, text)
	}
	switch t.os {
	case "linux":
		return nil
	case "windows":
		return addResources(program, r.version, r.at)
	}
	sign := exec.Command("codesign", "--force", "--sign", "-", "--entitlements", filepath.Join(r.dir, "hypervisor", "vz", "lsub.entitlements"), program)
	if text, err := sign.CombinedOutput(); err != nil {
		return fmt.Errorf("codesign: %w: %s", err, text)
	}
	return nil
}

// guestManifest is what guestbuild says of a guest.
type guestManifest struct {
	Arch     string
	Kernel   string
	Suite    string
	Packages map[string]string
}

func readGuest(dir, arch string) (guestManifest, error) {
	var g guestManifest
	name := filepath.Join(dir, "images", "guestimage", "embedded", arch, "manifest.json")
	b, err := os.ReadFile(name)
	if err != nil {
		return g, fmt.Errorf("its guest is not built ('./task guest ARCH=%s'): %w", arch, err)
	}
	return g, json.Unmarshal(b, &g)
}

// sumsFile has the checksums.
const sumsFile = "SHA256SUMS"

// writeSums writes the checksums of all files, in the form of sha256sum.
func writeSums(out string) error {
	entries, err := os.ReadDir(out)
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, e := range entries {
		if e.Name() == sumsFile {
			continue
		}
		b, err := os.ReadFile(filepath.Join(out, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(b), e.Name())
	}
	return os.WriteFile(filepath.Join(out, sumsFile), []byte(sums.String()), 0o644)
}
