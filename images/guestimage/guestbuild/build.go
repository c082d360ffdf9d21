package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/lsub/lsub/atomicfile"
	"github.com/lsub/lsub/filelock"
	"github.com/lsub/lsub/images/guestimage/manifest"
)

// The recipe is part of the cache's keys, so that a change of it is never
// answered with files of the one before.
var (
	//go:embed *.go rules.txt
	sources embed.FS
	//go:embed extract.go
	extractSource string
)

// builder builds guests of one architecture.
type builder struct {
	arch   arch
	suite  string
	packed bool   // the kernel stays a vmlinuz
	cache  string // absolute; of this architecture
	say    func(format string, args ...any)
}

// base is the part of a guest that lsubinit has no part in. It is the content
// of base.json in its directory, which also holds kernel.zst, system.zst and the
// initrd's modules.
type base struct {
	Manifest manifest.Manifest
	Order    []modLine
}

// programsOf are the Go packages of our programs in the VM.
type programsOf struct{ init, tool string }

// build writes the guest to the directory out.
func (b *builder) build(ctx context.Context, pkgs programsOf, out string, refresh bool) error {
	if err := os.MkdirAll(b.cache, 0o755); err != nil {
		return err
	}
	lock, err := filelock.Acquire(ctx, filepath.Join(b.cache, "lock"), func() { b.say("waiting for another build") })
	if err != nil {
		return err
	}
	defer lock.Release()
	if err := removeStale(b.cache, "tmp-", ""); err != nil { // of builds that were killed
		return err
	}

	tree, debs, err := cachedTree(ctx, b, refresh)
	if err != nil {
		return err
	}
	dir, bs, err := b.cachedBase(ctx, tree, debs)
	if err != nil {
		return err
	}
	init, err := buildProgram(ctx, b.arch, pkgs.init)
	if err != nil {
		return err
	}
	tool, err := buildProgram(ctx, b.arch, pkgs.tool)
	if err != nil {
		return err
	}
	initrd, err := makeInitrd(init, tool, filepath.Join(dir, "modules"), bs.Order)
	if err != nil {
		return err
	}
	m := bs.Manifest
	m.Files.Initrd = describe(initrd)
	if current(out, m) {
		b.say("%s is up to date (Linux %s)", out, m.Kernel)
		return nil
	}
	if err := b.write(out, dir, initrd, m); err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	b.say("wrote %s: Linux %s, kernel %s, initrd %s, system %s", out, m.Kernel,
		mib(m.Files.KernelImage.Size), mib(m.Files.Initrd.Size), mib(m.Files.System.Size))
	return nil
}

// write puts the guest's files into out, the manifest last.
func (b *builder) write(out, dir string, initrd []byte, m manifest.Manifest) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"kernel.zst", "system.zst"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if err := replaceFile(filepath.Join(out, name), data); err != nil {
			return err
		}
	}
	packed, err := compress(initrd)
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(out, "initrd.zst"), packed); err != nil {
		return err
	}
	data, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(out, manifest.Name), append(data, '\n'))
}

// current tells whether out holds the guest that m describes. Each file there
// was put in place whole, the manifest last, so it speaks for the others.
func current(out string, m manifest.Manifest) bool {
	data, err := os.ReadFile(filepath.Join(out, manifest.Name))
	var have manifest.Manifest
	if err != nil || json.Unmarshal(data, &have) != nil || !reflect.DeepEqual(have, m) {
		return false
	}
	for _, name := range []string{"kernel.zst", "initrd.zst", "system.zst"} {
		if _, err := os.Stat(filepath.Join(out, name)); err != nil {
			return false
		}
	}
	return true
}

// cachedBase returns the directory of the guest's base, built from tree where the
// cache does not have it.
func (b *builder) cachedBase(ctx context.Context, tree string, debs *debFiles) (string, *base, error) {
	key, err := recipeKey()
	if err != nil {
		return "", nil, err
	}
	versions, err := json.Marshal(debs.Versions) // sorted by package
	if err != nil {
		return "", nil, err
	}
	kind := "base-"
	if b.packed {
		kind = "packed-"
	}
	name := kind + hash(key, b.suite, string(versions))
	dir := filepath.Join(b.cache, name)
	bs := new(base)
	if data, err := os.ReadFile(filepath.Join(dir, "base.json")); err == nil {
		return dir, bs, json.Unmarshal(data, bs)
	}
	tmp, err := os.MkdirTemp(b.cache, "tmp-")
	if err != nil {
		return "", nil, err
	}
	defer os.RemoveAll(tmp)
	if bs, err = b.makeBase(ctx, tree, debs, tmp); err != nil {
		return "", nil, err
	}
	if err := removeStale(b.cache, kind, name); err != nil {
		return "", nil, err
	}
	return dir, bs, os.Rename(tmp, dir)
}

// makeBase builds the guest's base in dir.
func (b *builder) makeBase(ctx context.Context, tree string, debs *debFiles, dir string) (*base, error) {
	releases, err := filepath.Glob(filepath.Join(tree, "usr/lib/modules/*"))
	if err != nil || len(releases) != 1 {
		return nil, fmt.Errorf("want one kernel in the packages, found %d", len(releases))
	}
	release := filepath.Base(releases[0])
	vmlinuz, err := os.ReadFile(filepath.Join(tree, "boot/vmlinuz-"+release))
	if err != nil {
		return nil, err
	}
	b.say("unpacking Linux %s", release)
	kernel := vmlinuz
	if !b.packed {
		if kernel, err = unpackKernel(b.arch.goarch, vmlinuz); err != nil {
			return nil, err
		}
	}

	root := filepath.Join(dir, "root")
	owners, err := stageSystem(ctx, b, tree, debs, root, release)
	if err != nil {
		return nil, err
	}
	modules := filepath.Join(root, "usr/lib/modules", release)
	order, err := readOrder(modules)
	if err != nil {
		return nil, err
	}
	for _, m := range order {
		if err := copyEntry(filepath.Join(modules, m.File), filepath.Join(dir, "modules", m.File)); err != nil {
			return nil, err
		}
	}
	image := filepath.Join(dir, "system.erofs")
	if err := makeErofs(ctx, root, image); err != nil {
		return nil, err
	}
	system, err := os.ReadFile(image)
	if err != nil {
		return nil, err
	}

	bs := &base{Order: order, Manifest: manifest.Manifest{
		Arch: b.arch.goarch, Kernel: release, Suite: b.suite,
		Files:    manifest.Files{KernelImage: describe(kernel), System: describe(system)},
		Packages: map[string]string{},
	}}
	for _, o := range owners {
		bs.Manifest.Packages[o] = debs.Versions[o]
	}
	b.say("compressing")
	if err := errors.Join(os.RemoveAll(root), os.Remove(image)); err != nil {
		return nil, err
	}
	return bs, writeBase(dir, bs, kernel, system)
}

// writeBase writes what of the base is kept: base.json and the packed files.
func writeBase(dir string, bs *base, kernel, system []byte) error {
	for name, data := range map[string][]byte{"kernel.zst": kernel, "system.zst": system} {
		packed, err := compress(data)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), packed, 0o644); err != nil {
			return err
		}
	}
	data, err := json.MarshalIndent(bs, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "base.json"), data, 0o644)
}

// readOrder reads the module indexes in dir.
func readOrder(dir string) ([]modLine, error) {
	dep, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	return modOrder(dep, builtin)
}

// recipeKey stands for this program's sources.
func recipeKey() (string, error) {
	var parts []string
	err := fs.WalkDir(sources, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(p, "_test.go") {
			return err
		}
		data, err := sources.ReadFile(p)
		parts = append(parts, p, string(data))
		return err
	})
	return hash(parts...), err
}

// compress packs data as small as zstd can in bearable time. One goroutine:
// the bytes must not depend on the number of CPUs.
func compress(data []byte) ([]byte, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(true))
	if err != nil {
		return nil, err
	}
	return z.EncodeAll(data, nil), z.Close()
}

func describe(data []byte) manifest.File {
	sum := sha256.Sum256(data)
	return manifest.File{SHA256: hex.EncodeToString(sum[:]), Size: int64(len(data))}
}

// hash returns a short name for the parts, in their order.
func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// removeStale removes what the cache holds under names that begin with prefix,
// except keep.
func removeStale(cache, prefix, keep string) error {
	entries, err := os.ReadDir(cache)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && e.Name() != keep {
			err = errors.Join(err, os.RemoveAll(filepath.Join(cache, e.Name())))
		}
	}
	return err
}

// replaceFile puts a file in place whole, unless it is there already.
func replaceFile(name string, data []byte) error {
	if have, err := os.ReadFile(name); err == nil && bytes.Equal(have, data) {
		return nil
	}
	return atomicfile.Write(name, data, 0o644)
}

func sorted(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
