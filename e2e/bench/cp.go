package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

const tarPeer = "tar through lsub exec"

// crossing measures copies between the host and a distro, beside tar through a pipe: one large
// file, and many small ones.
func (b *bench) crossing() error {
	if err := b.main.debian(); err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "copies")
	large, files := int64(1<<30), 20000
	if b.quick {
		large, files = 128<<20, 2000
	}
	if err := writeLarge(filepath.Join(dir, "large"), large); err != nil {
		return err
	}
	if err := writeMany(filepath.Join(dir, "many"), files); err != nil {
		return err
	}
	for _, c := range []struct {
		source, about, unit string
		size                int64
	}{
		{"large", fmt.Sprintf("a file of %d MiB", large>>20), "MB/s", large},
		{"many", fmt.Sprintf("%d files of 2 KB", files), "ms", 0},
	} {
		if err := b.cross(dir, c.source, c.about, c.unit, c.size); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

// cross measures copies of one source, in and out.
func (b *bench) cross(dir, source, about, unit string, size int64) error {
	const at = "/root/copies"
	var in, out, tarIn, tarOut samples
	for range b.times(3, 1) {
		back := filepath.Join(dir, "back")
		for _, step := range []struct {
			into *samples
			run  func() (time.Duration, error)
		}{
			{&tarIn, func() (time.Duration, error) { return b.tar(dir, source, at) }},
			{nil, func() (time.Duration, error) { return b.inDebian("rm -rf " + at + "; mkdir " + at + "; sync") }},
			{&in, func() (time.Duration, error) {
				return b.main.lsub("cp", "-u", "root", filepath.Join(dir, source), "debian:"+at+"/")
			}},
			{&tarOut, func() (time.Duration, error) { return b.untar(at, source, back) }},
			{nil, func() (time.Duration, error) { return 0, os.RemoveAll(back) }},
			{&out, func() (time.Duration, error) { return b.main.lsub("cp", "-u", "root", "debian:"+at+"/"+source, back) }},
			{nil, func() (time.Duration, error) { return b.inDebian("rm -rf " + at) }},
			{nil, func() (time.Duration, error) { return 0, os.RemoveAll(back) }},
		} {
			took, err := step.run()
			switch {
			case err != nil:
				return err
			case step.into == nil:
			case size > 0:
				*step.into = append(*step.into, float64(size)/1e6/took.Seconds())
			default:
				step.into.add(took)
			}
		}
	}
	b.report.figure("lsub cp into a distro: "+about, unit, in).beside(tarPeer, tarIn)
	b.report.figure("lsub cp out of a distro: "+about, unit, out).beside(tarPeer, tarOut)
	return nil
}

func (b *bench) inDebian(script string) (time.Duration, error) {
	return b.main.lsub("exec", "-u", "root", "debian", "--", "sh", "-ec", script)
}

// tar copies a source into the distro by tar.
func (b *bench) tar(dir, source, at string) (time.Duration, error) {
	pack := exec.CommandContext(b.ctx, "tar", "-C", dir, "-cf", "-", source)
	return b.piped(pack, b.main.command, "exec", "-u", "root", "debian", "--", "sh", "-ec", "mkdir "+at+"; exec tar -C "+at+" -xf -")
}

// untar copies a source out of the distro by tar.
func (b *bench) untar(at, source, to string) (time.Duration, error) {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return 0, err
	}
	unpack := exec.CommandContext(b.ctx, "tar", "-C", to, "-xf", "-")
	return b.piped(unpack, b.main.command, "exec", "-u", "root", "debian", "--", "tar", "-C", at, "-cf", "-", source)
}

// piped runs tar on the host beside lsub: the one that packs is the other's stdin.
func (b *bench) piped(tar *exec.Cmd, command func(context.Context, ...string) *exec.Cmd, args ...string) (time.Duration, error) {
	lsub := command(b.ctx, args...)
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	if slices.Contains(tar.Args, "-cf") {
		tar.Stdout, lsub.Stdin = w, r
	} else {
		lsub.Stdout, tar.Stdin = w, r
	}
	begin := time.Now()
	if err := tar.Start(); err != nil {
		return 0, err
	}
	err = lsub.Start()
	r.Close()
	w.Close()
	if err == nil {
		err = lsub.Wait()
	}
	if werr := tar.Wait(); err == nil {
		err = werr
	}
	return time.Since(begin), err
}

func writeLarge(name string, size int64) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	random, err := os.Open("/dev/urandom")
	if err != nil {
		return err
	}
	defer random.Close()
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(f, random, size)
	return err
}

func writeMany(dir string, n int) error {
	content := make([]byte, 2000)
	for i := range n {
		sub := filepath.Join(dir, fmt.Sprint(i/200))
		if i%200 == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprint(i)), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
