package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
)

// systemUUID is the system image's; a fixed one, so that equal content gives
// an equal image.
const systemUUID = "6c737562-0000-4000-8000-000000000001"

// mergedLinks make the image's /bin and so on lead into its /usr.
var mergedLinks = []string{"bin", "lib", "lib64", "sbin"}

// modprobeConf has the kernel load KVM when /dev/kvm (10:232) is opened. Elsewhere udev loads
// it at boot, for the processor that it finds; the module for another one does not load.
const modprobeConf = "alias char-major-10-232 kvm_amd\nalias char-major-10-232 kvm_intel\n"

// stageSystem fills root with what the system image holds: modules with their
// indexes, programs with what they need, and the licences of all that. It
// returns the packages whose files it took.
func stageSystem(ctx context.Context, b *builder, tree string, debs *debFiles, root, release string) ([]string, error) {
	for _, name := range mergedLinks {
		if err := os.MkdirAll(filepath.Join(root, "usr", name), 0o755); err != nil {
			return nil, err
		}
		if err := os.Symlink("usr/"+name, filepath.Join(root, name)); err != nil {
			return nil, err
		}
	}
	rules, err := parseRules(rulesText)
	if err != nil {
		return nil, err
	}
	modules := path.Join("usr/lib/modules", release)
	kept, total, err := stageModules(filepath.Join(tree, modules), filepath.Join(root, modules), rules)
	if err != nil {
		return nil, err
	}
	b.say("kept %d of %d modules", kept, total)
	if err := runDepmod(ctx, b.arch, tree, root, release); err != nil {
		return nil, err
	}

	conf := filepath.Join(root, "usr/lib/modprobe.d/lsub.conf")
	if err := errors.Join(os.MkdirAll(filepath.Dir(conf), 0o755), os.WriteFile(conf, []byte(modprobeConf), 0o644)); err != nil {
		return nil, err
	}

	files, err := closure(tree, b.arch, programs)
	if err != nil {
		return nil, err
	}
	owners := map[string]bool{"linux-image-" + release: true}
	for _, f := range files {
		owner, ok := debs.Owner[f]
		if !ok {
			return nil, fmt.Errorf("%s is from no package", f)
		}
		owners[owner] = true
		if err := copyEntry(filepath.Join(tree, f), filepath.Join(root, f)); err != nil {
			return nil, err
		}
	}
	for owner := range owners {
		doc := path.Join("usr/share/doc", owner, "copyright")
		if err := os.MkdirAll(filepath.Join(root, path.Dir(doc)), 0o755); err != nil {
			return nil, err
		}
		if err := copyFile(filepath.Join(tree, doc), filepath.Join(root, doc), 0o644); err != nil {
			return nil, fmt.Errorf("licence of %s: %w", owner, err)
		}
	}
	return sorted(owners), nil
}

// makeErofs packs root into the image file out. Nothing in it is compressed:
// an emulated CPU would pay for that with each page it reads, and the file is
// compressed as a whole until it is used.
func makeErofs(ctx context.Context, root, out string) error {
	if err := evenModes(root); err != nil {
		return err
	}
	// -T: one time for all files. -x-1: no extended attributes of the host.
	cmd := exec.CommandContext(ctx, "mkfs.erofs", "--quiet", "-T0", "-U", systemUUID, "-x-1", "--all-root", out, root)
	msg, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		err = errors.New("mkfs.erofs is not installed (apt install erofs-utils)")
	}
	if err != nil {
		return fmt.Errorf("make the system image: %w: %s", err, bytes.TrimSpace(msg))
	}
	return nil
}

// evenModes makes the files' modes independent of the builder's umask.
func evenModes(root string) error {
	return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if d.IsDir() || info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		return os.Chmod(p, mode)
	})
}

// copyEntry copies a file or a symbolic link, and makes the directories above it.
func copyEntry(src, dst string) error {
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	info, err := os.Lstat(src)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink == 0 {
		return copyFile(src, dst, info.Mode().Perm())
	}
	target, err := os.Readlink(src)
	if err != nil {
		return err
	}
	return os.Symlink(target, dst)
}

func copyFile(src, dst string, perm fs.FileMode) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
