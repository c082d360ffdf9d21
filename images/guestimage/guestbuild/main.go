// Command guestbuild builds what the utility VM boots: kernel, initrd and
// system image, from Debian's packages and our lsubinit. The results are
// embedded in lsub by package guestimage.
//
//	go run ./images/guestimage/guestbuild -arch amd64
//
// It needs mmdebstrap and mkfs.erofs, and for another architecture than the
// host's depmod. It needs no root. The network is used once: the packages stay
// in the user's cache directory, and -refresh looks for newer ones. The same
// packages, lsubinit and erofs-utils give the same bytes.
//
// The steps, each kept in the cache by what it is made from:
//
//	packages ─ extract.go ─▶ tree ─┬─ kernel.go ──────────▶ kernel   (uncompressed)
//	                               ├─ system.go ──────────▶ system   (EROFS: modules, modprobe, btrfs)
//	                               └─ modules.go, initrd.go ▶ initrd (lsubinit, first modules)
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
)

// arch is what differs between the architectures of a guest.
type arch struct {
	goarch  string // Go's and Debian's name
	triplet string // directory of shared libraries below /usr/lib
	loader  string // dynamic loader, relative to the tree
}

var arches = map[string]arch{
	"amd64": {"amd64", "x86_64-linux-gnu", "usr/lib64/ld-linux-x86-64.so.2"},
	"arm64": {"arm64", "aarch64-linux-gnu", "usr/lib/ld-linux-aarch64.so.1"},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "guestbuild:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("guestbuild", flag.ContinueOnError)
	goarch := flags.String("arch", runtime.GOARCH, "architecture of the guest: amd64 or arm64")
	suite := flags.String("suite", "trixie", "Debian suite to take the packages from")
	packed := flags.Bool("packed", false, "keep an amd64 kernel packed (bzImage), as macOS boots it on Intel")
	initPkg := flags.String("init", "./guest/lsubinit", "Go package that becomes /init")
	toolPkg := flags.String("tool", "./guest/tool", "Go package that becomes lsub-tool in distros")
	out := flags.String("out", filepath.Join("images", "guestimage", "embedded"), "directory to write ARCH/ to")
	cache := flags.String("cache", "", "cache directory (default: lsub/guest in the user's)")
	refresh := flags.Bool("refresh", false, "look for newer packages")
	if err := flags.Parse(args); err != nil {
		return err
	}
	a, ok := arches[*goarch]
	if !ok {
		return fmt.Errorf("no recipe for architecture %q", *goarch)
	}
	if *packed && *goarch != "amd64" {
		return fmt.Errorf("the kernel for %s is never booted packed", *goarch)
	}
	if *cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return err
		}
		*cache = filepath.Join(dir, "lsub", "guest")
	}
	// Absolute, because dynamic loaders and mkfs.erofs are given paths in it.
	dir, err := filepath.Abs(filepath.Join(*cache, a.goarch))
	if err != nil {
		return err
	}
	b := &builder{
		arch: a, suite: *suite, packed: *packed, cache: dir,
		say: func(format string, args ...any) { fmt.Fprintf(os.Stderr, "guest: "+format+"\n", args...) },
	}
	return b.build(ctx, programsOf{*initPkg, *toolPkg}, filepath.Join(*out, a.goarch), *refresh)
}
