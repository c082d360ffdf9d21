package main

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// programs are what the system image holds besides modules: what lsubinit and
// the agent run in the VM itself, outside of any distro.
var programs = []string{
	"usr/bin/kmod", "usr/sbin/modprobe", "usr/sbin/insmod", "usr/sbin/rmmod", "usr/bin/lsmod", "usr/sbin/modinfo",
	"usr/bin/btrfs", "usr/sbin/mkfs.btrfs",
}

// closure returns the programs and all they need to run: the files that
// symbolic links lead to, dynamic loaders and shared libraries. Paths are
// relative to tree and sorted.
func closure(tree string, a arch, start []string) ([]string, error) {
	seen := map[string]bool{}
	next := slices.Clone(start)
	for len(next) > 0 {
		file := next[0]
		next = next[1:]
		if seen[file] {
			continue
		}
		seen[file] = true
		needs, err := needs(tree, a, file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		next = append(next, needs...)
	}
	files := make([]string, 0, len(seen))
	for f := range seen {
		files = append(files, f)
	}
	slices.Sort(files)
	return files, nil
}

// needs returns what one file needs itself.
func needs(tree string, a arch, file string) ([]string, error) {
	full := filepath.Join(tree, file)
	info, err := os.Lstat(full)
	if err != nil {
		return nil, err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(full)
		if err != nil {
			return nil, err
		}
		if path.IsAbs(target) {
			return []string{merged(target)}, nil
		}
		return []string{path.Join(path.Dir(file), target)}, nil
	}
	f, err := elf.Open(full)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	libs, err := f.ImportedLibraries()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return nil, err
	}
	var files []string
	for _, lib := range libs {
		p, err := findLibrary(tree, a, lib)
		if err != nil {
			return nil, err
		}
		files = append(files, p)
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		b, err := readAtMost(p.Open(), 4096)
		if err != nil {
			return nil, err
		}
		files = append(files, merged(strings.TrimRight(string(b), "\x00")))
	}
	return files, nil
}

// findLibrary looks where the dynamic loader of a Debian system does.
func findLibrary(tree string, a arch, lib string) (string, error) {
	for _, dir := range []string{"usr/lib/" + a.triplet, path.Dir(a.loader), "usr/lib"} {
		p := path.Join(dir, lib)
		if _, err := os.Lstat(filepath.Join(tree, p)); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("needs %s, which no package of the recipe has", lib)
}

// merged turns an absolute path into one relative to the tree, in which /bin,
// /sbin, /lib and /lib64 are in /usr.
func merged(abs string) string {
	p := strings.TrimPrefix(path.Clean(abs), "/")
	if !strings.HasPrefix(p, "usr/") {
		p = "usr/" + p
	}
	return p
}
