package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// packages are what the guest is made of, beside linux-image-ARCH.
var packages = []string{"btrfs-progs", "kmod"}

// listHook runs while the packages' files are still there, with the tree as
// $1. It notes which package each file is from: extracting alone leaves dpkg's
// own record empty. The kernel's long list is left out.
const listHook = `set -e
mkdir "$1/` + listDir + `"
for deb in "$1"/var/cache/apt/archives/*.deb; do
	name=${deb##*/}
	case $name in
	linux-image-*) : ;;
	*) dpkg-deb --fsys-tarfile "$deb" | tar -t ;;
	esac >"$1/` + listDir + `/$name"
done`

const listDir = "lsub-packages"

// debFiles says which package of which version a tree's files are from.
type debFiles struct {
	Versions map[string]string // package → version
	Owner    map[string]string // path relative to the tree → package
}

// extract fills dir with the packages' files, as mmdebstrap and through it apt
// finds and verifies them, and returns where they are from. Nothing of the
// packages is run, so dir may be of any architecture.
func extract(ctx context.Context, a arch, suite, dir string) (*debFiles, error) {
	include := append([]string{"linux-image-" + a.goarch}, packages...)
	mode := "chrootless" // needs neither root nor subordinate user ids
	if os.Geteuid() == 0 {
		mode = "root" // chrootless refuses root
	}
	cmd := exec.CommandContext(ctx, "mmdebstrap", "--mode="+mode, "--variant=extract", "--format=tar",
		"--architectures="+a.goarch, "--include="+strings.Join(include, ","),
		`--aptopt=Acquire::Retries "3"`, "--extract-hook="+listHook, suite, "-")
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it removes its temporary files
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			err = errors.New("mmdebstrap is not installed (apt install mmdebstrap)")
		}
		return nil, fmt.Errorf("extract packages: %w", err)
	}
	debs, unpackErr := unpackTree(out, dir)
	if unpackErr != nil {
		cmd.Cancel()
		io.Copy(io.Discard, out) // so that it is not stuck in a write
	}
	if err := cmd.Wait(); err != nil && unpackErr == nil {
		return nil, fmt.Errorf("extract packages: mmdebstrap: %w:\n%s", err, lastLines(stderr.String(), 12))
	}
	if unpackErr != nil {
		return nil, fmt.Errorf("extract packages: %w:\n%s", unpackErr, lastLines(stderr.String(), 12))
	}
	if len(debs.Versions) == 0 {
		return nil, errors.New("extract packages: mmdebstrap gave no packages")
	}
	return debs, nil
}

// unpackTree writes the files that the build can need from the tar r to dir.
func unpackTree(r io.Reader, dir string) (*debFiles, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	debs := &debFiles{Versions: map[string]string{}, Owner: map[string]string{}}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return debs, nil
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean(h.Name)
		if deb, ok := strings.CutPrefix(name, listDir+"/"); ok && h.Typeflag == tar.TypeReg {
			err = debs.add(deb, tr)
		} else if wanted(name) {
			err = unpackEntry(root, name, h, tr)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
}

func unpackEntry(root *os.Root, name string, h *tar.Header, r io.Reader) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, h.FileInfo().Mode().Perm()|0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Close())
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return root.Link(path.Clean(h.Linkname), name)
	}
	return nil // directories come with their files
}

// wanted tells which files of the packages are kept.
func wanted(name string) bool {
	switch {
	case strings.HasPrefix(name, "boot/vmlinu"):
		return true
	case strings.HasPrefix(name, "usr/share/doc/"):
		// A package's directory may be a link to that of its library.
		return path.Base(name) == "copyright" || path.Dir(name) == "usr/share/doc"
	case strings.HasPrefix(name, "usr/lib/modules/"):
		return true
	case strings.HasPrefix(name, "usr/bin/"), strings.HasPrefix(name, "usr/sbin/"), strings.HasPrefix(name, "usr/lib64/"):
		return true
	case strings.HasPrefix(name, "usr/lib/"):
		return strings.Contains(path.Base(name), ".so") && !strings.Contains(name, "/gconv/")
	}
	return false
}

// add notes the package file name_version_arch.deb and its list of files.
func (d *debFiles) add(deb string, list io.Reader) error {
	parts := strings.Split(strings.TrimSuffix(deb, ".deb"), "_")
	if len(parts) != 3 {
		return fmt.Errorf("package file has an unknown form of name")
	}
	version, err := url.PathUnescape(parts[1]) // an epoch's colon is %3a
	if err != nil {
		return err
	}
	d.Versions[parts[0]] = version
	sc := bufio.NewScanner(list)
	for sc.Scan() {
		if p := sc.Text(); !strings.HasSuffix(p, "/") {
			d.Owner[merged("/"+p)] = parts[0]
		}
	}
	return sc.Err()
}

// cachedTree returns the directory with the extracted packages, from the cache
// unless refresh is set or it is missing there.
func cachedTree(ctx context.Context, b *builder, refresh bool) (string, *debFiles, error) {
	key := hash(b.arch.goarch, b.suite, strings.Join(packages, " "), listHook, extractSource)
	dir := filepath.Join(b.cache, "tree-"+key)
	record := filepath.Join(dir, "packages.json")
	if data, err := os.ReadFile(record); err == nil && !refresh {
		debs := new(debFiles)
		if err := json.Unmarshal(data, debs); err != nil {
			return "", nil, fmt.Errorf("%s: %w", record, err)
		}
		return dir, debs, nil
	}
	b.say("taking the kernel and its tools from Debian %s for %s", b.suite, b.arch.goarch)
	tmp, err := os.MkdirTemp(b.cache, "tmp-")
	if err != nil {
		return "", nil, err
	}
	defer os.RemoveAll(tmp)
	debs, err := extract(ctx, b.arch, b.suite, tmp)
	if err != nil {
		return "", nil, err
	}
	data, err := json.MarshalIndent(debs, "", "\t")
	if err != nil {
		return "", nil, err
	}
	if err := os.WriteFile(filepath.Join(tmp, "packages.json"), data, 0o644); err != nil {
		return "", nil, err
	}
	if err := removeStale(b.cache, "tree-", ""); err != nil {
		return "", nil, err
	}
	return dir, debs, os.Rename(tmp, dir)
}

// lastLines returns the last n lines of s, for an error.
func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
