package main

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/ulikunitz/xz"
)

// initrdModules are the modules that the initrd holds, in groups that
// lsubinit loads by itself; every other module is loaded by modprobe from the
// system image. A "?" before a name: the kernel of some architecture lacks it.
var initrdModules = []struct {
	group string
	names []string
}{
	// First, because the host waits for this.
	{"vsock", []string{"vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport"}},
	// Where a virtio console is the only one, as on macOS; elsewhere it is not loaded.
	{"console", []string{"virtio_console"}},
	// The system disk first: modprobe is on it. crc32c before erofs, which needs
	// libcrc32c: that takes the fastest crc32c it finds when it is loaded, fails
	// without any, and stays with it. crc32c_intel does not load on all CPUs.
	{"disk", []string{"virtio_blk", "?crc32c_intel", "?crc32c_generic", "erofs", "btrfs"}},
	{"net", []string{"virtio_net", "virtio_balloon", "virtio_rng"}},
	// For a VM whose hypervisor has no network card.
	{"tap", []string{"tun"}},
	// Only in a VM of Hyper-V; elsewhere they find nothing and refuse to load.
	{"hyperv", []string{"?hv_vmbus", "?hv_sock", "?hv_storvsc", "sd_mod", "?hv_netvsc", "?hv_utils"}},
}

// modName is a module's name as the kernel knows it, of its file's name.
func modName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// stageModules unpacks the modules that the rules keep, and those they need,
// from src (/usr/lib/modules/RELEASE of the packages) to dst, and copies the
// kernel's own lists. It returns how many modules there are and were.
func stageModules(src, dst string, rules []rule) (kept, total int, err error) {
	files := map[string]string{} // name → path below src
	err = filepath.WalkDir(filepath.Join(src, "kernel"), func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(d.Name(), ".ko") {
			rel, _ := filepath.Rel(src, p)
			files[modName(rel)] = filepath.ToSlash(rel)
		}
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	var next []string
	for name, file := range files {
		if keeps(rules, file) {
			next = append(next, name)
		}
	}
	done := map[string]bool{}
	for len(next) > 0 {
		slices.Sort(next)
		deps, err := unpackModules(src, dst, files, next)
		if err != nil {
			return 0, 0, err
		}
		for _, name := range next {
			done[name] = true
		}
		next = next[:0]
		for name := range deps {
			// A dependency without a file is built in.
			if _, ok := files[name]; ok && !done[name] {
				next = append(next, name)
			}
		}
	}
	for _, list := range []string{"modules.builtin", "modules.builtin.modinfo", "modules.order"} {
		if err := copyFile(filepath.Join(src, list), filepath.Join(dst, list), 0o644); err != nil {
			return 0, 0, err
		}
	}
	return len(done), len(files), nil
}

// unpackModules writes the named modules to dst, a few at a time, and returns
// the names of the modules they need.
func unpackModules(src, dst string, files map[string]string, names []string) (map[string]bool, error) {
	type result struct {
		deps []string
		err  error
	}
	results := make(chan result, len(names))
	slots := make(chan struct{}, runtime.NumCPU())
	for _, name := range names {
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			deps, err := unpackModule(src, dst, files[name])
			results <- result{deps, err}
		}()
	}
	needed := map[string]bool{}
	var errs []error
	for range names {
		r := <-results
		errs = append(errs, r.err)
		for _, d := range r.deps {
			needed[d] = true
		}
	}
	return needed, errors.Join(errs...)
}

func unpackModule(src, dst, file string) (deps []string, err error) {
	data, err := os.ReadFile(filepath.Join(src, file))
	if err != nil {
		return nil, err
	}
	plain, _, _ := strings.Cut(file, ".ko")
	plain += ".ko"
	if path.Ext(file) != ".ko" {
		if data, err = decompressModule(data); err != nil {
			return nil, fmt.Errorf("module %s: %w", file, err)
		}
	}
	data = unsigned(data)
	if deps, err = modDepends(data); err != nil {
		return nil, fmt.Errorf("module %s: %w", file, err)
	}
	out := filepath.Join(dst, plain)
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return nil, err
	}
	return deps, os.WriteFile(out, data, 0o644)
}

func decompressModule(b []byte) ([]byte, error) {
	if !bytes.HasPrefix(b, []byte("\xfd7zXZ\x00")) {
		return decompress(b)
	}
	r, err := xz.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return readAtMost(r, maxKernel)
}

// unsigned takes the signature off a module's end. Checking it is half of what
// loading a module costs under software emulation, and the VM trusts the image
// that the module is in anyway. The kernel marks itself tainted (E).
// The layout is that of linux/module_signature.h: the signature, 12 bytes that
// end in its length (big endian), and a marker.
func unsigned(ko []byte) []byte {
	const info = 12
	body, found := bytes.CutSuffix(ko, []byte("~Module signature appended~\n"))
	if !found || len(body) < info {
		return ko
	}
	size := int64(binary.BigEndian.Uint32(body[len(body)-4:]))
	if size > int64(len(body)-info) {
		return ko
	}
	return body[:int64(len(body))-info-size]
}

// modDepends returns the names of the modules that a module says it needs.
func modDepends(ko []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(ko))
	if err != nil {
		return nil, err
	}
	s := f.Section(".modinfo")
	if s == nil {
		return nil, errors.New("no .modinfo section")
	}
	info, err := s.Data()
	if err != nil {
		return nil, err
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		list, ok := bytes.CutPrefix(field, []byte("depends="))
		if !ok || len(list) == 0 {
			continue
		}
		deps := strings.Split(string(list), ",")
		for i := range deps {
			deps[i] = modName(deps[i])
		}
		return deps, nil
	}
	return nil, nil
}

// runDepmod writes the indexes that modprobe reads (modules.dep, modules.alias
// and so on) for the modules below root/usr/lib/modules. It uses the packages'
// own depmod where this machine can run it, else the host's.
func runDepmod(ctx context.Context, a arch, tree, root, release string) error {
	args := []string{"-b", root, release}
	cmd := exec.CommandContext(ctx, "depmod", args...)
	if runtime.GOOS == "linux" && runtime.GOARCH == a.goarch {
		// Through its own loader, so that it meets its own libraries.
		cmd = exec.CommandContext(ctx, filepath.Join(tree, a.loader), append([]string{
			"--argv0", "depmod", "--library-path", filepath.Join(tree, "usr/lib", a.triplet),
			filepath.Join(tree, "usr/bin/kmod")}, args...)...)
	}
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("depmod: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// modLine is a line of the initrd's /modules/order.
type modLine struct {
	Group string
	File  string // below /usr/lib/modules/RELEASE
}

// modOrder says in which order lsubinit loads the initrd's modules, each after
// those it needs. dep is modules.dep, builtin modules.builtin.
func modOrder(dep, builtin []byte) ([]modLine, error) {
	type entry struct {
		file string
		deps []string
	}
	mods := map[string]entry{}
	sc := bufio.NewScanner(bytes.NewReader(dep))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		file, deps, ok := strings.Cut(sc.Text(), ":")
		if !ok {
			return nil, fmt.Errorf("modules.dep: bad line %q", sc.Text())
		}
		mods[modName(file)] = entry{file, strings.Fields(deps)}
	}
	if err := sc.Err(); err != nil {
		return nil, err
	}
	inKernel := map[string]bool{}
	for line := range strings.FieldsSeq(string(builtin)) {
		inKernel[modName(line)] = true
	}

	var order []modLine
	seen := map[string]bool{}
	add := func(group, file string) {
		if !seen[file] {
			seen[file] = true
			order = append(order, modLine{group, file})
		}
	}
	for _, g := range initrdModules {
		for _, name := range g.names {
			name, optional := strings.CutPrefix(name, "?")
			m, ok := mods[name]
			if !ok {
				if optional || inKernel[name] {
					continue
				}
				return nil, fmt.Errorf("the kernel has no module %s", name)
			}
			// modules.dep names the module to load last first.
			for _, d := range slices.Backward(m.deps) {
				add(g.group, d)
			}
			add(g.group, m.file)
		}
	}
	return order, nil
}
