package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// makeInitrd returns the archive that the kernel starts: lsubinit as /init,
// lsub-tool in /tools, which distros see as /run/lsub/bin, and the modules it loads before it can reach the system image.
//
// /modules/order has a line "GROUP PATH" per module, in load order: within a
// group, and over all groups from first to last, a module follows those it
// needs. The groups are those of initrdModules.
func makeInitrd(init, tool []byte, modules string, order []modLine) ([]byte, error) {
	var out bytes.Buffer
	c := &cpioWriter{w: &out}
	// A mount point for each file system that lsubinit mounts.
	for _, d := range []string{"data", "dev", "etc", "modules", "proc", "root", "run", "sys", "system", "tmp", "tools"} {
		perm := uint32(0o755)
		switch d {
		case "tmp":
			perm = 0o1777
		case "root":
			perm = 0o700
		}
		c.dir(d, perm)
	}
	// These lead nowhere until the system image is mounted.
	for _, l := range mergedLinks {
		c.symlink(l, "system/usr/"+l)
	}
	c.symlink("usr", "system/usr")
	c.charDevice("dev/console", 0o600, 5, 1) // the kernel opens it for /init
	c.charDevice("dev/null", 0o666, 1, 3)    // Go opens it for /init where the console's driver is a module
	c.file("init", 0o755, init)
	c.file("tools/lsub-tool", 0o755, tool)
	c.symlink("tools/wslpath", "lsub-tool")

	var list bytes.Buffer
	for _, m := range order {
		name := "modules/" + path.Base(m.File)
		data, err := os.ReadFile(filepath.Join(modules, m.File))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&list, "%s /%s\n", m.Group, name)
		c.file(name, 0o644, data)
	}
	c.file("modules/order", 0o644, list.Bytes())
	if err := c.close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// buildProgram compiles the package pkg as a static program for the VM.
func buildProgram(ctx context.Context, a arch, pkg string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "lsub-guestbuild-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "program")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+a.goarch, "GOFLAGS=", "GOAMD64=", "GOARM64=")
	msg, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("build %s: %w:\n%s", pkg, err, strings.TrimSpace(string(msg)))
	}
	return os.ReadFile(out)
}
