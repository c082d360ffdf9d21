// Package guestfiles makes what the real VMs of the driver tests boot: lsub's kernel, and an
// initramfs with the test guest (package main in ../testguest) and the modules of lsub's own
// that the devices under test need.
//
//	err := guestfiles.Make(dir, runtime.GOARCH) // DIR/kernel and DIR/initrd
//
// It runs the Go compiler.
package guestfiles

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/lsub/lsub/images/guestimage"
)

// Make puts a kernel and an initrd for a processor (GOARCH) into dir, which exists. All users
// can read them. The guest was built before ('./task guest').
func Make(dir, arch string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	cache := filepath.Join(dir, "cache")
	_, here, _, ok := runtime.Caller(0) // tests run in the directories of their packages
	if !ok {
		return errors.New("the module's directory is not known")
	}
	embedded := filepath.Join(filepath.Dir(here), "..", "..", "..", "images", "guestimage", "embedded", arch)
	g, err := guestimage.OpenDir(context.Background(), embedded, cache)
	if err != nil {
		return err
	}
	defer os.RemoveAll(cache)
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", filepath.Join(dir, "init"), "github.com/lsub/lsub/hypervisor/hvtest/testguest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", build.Args, err, out)
	}
	init, err := os.ReadFile(filepath.Join(dir, "init"))
	if err != nil {
		return err
	}
	archive, err := os.ReadFile(g.Initrd)
	if err != nil {
		return err
	}
	files, err := readCPIO(archive)
	if err != nil {
		return fmt.Errorf("%s: %w", g.Initrd, err)
	}
	initrd := makeInitrd(init, files)
	if err := os.WriteFile(filepath.Join(dir, "initrd"), initrd, 0o644); err != nil {
		return err
	}
	kernel, err := os.ReadFile(g.Kernel)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "kernel"), kernel, 0o644)
}

// makeInitrd returns an initramfs with init, and with modules out of files.
func makeInitrd(init []byte, files map[string][]byte) []byte {
	var out bytes.Buffer
	writeCPIO(&out, entry{name: "dev", mode: 0o040755})
	// Without these, a Go program does not start where the console's driver is a module.
	writeCPIO(&out, entry{name: "dev/console", mode: 0o020600, major: 5, minor: 1})
	writeCPIO(&out, entry{name: "dev/null", mode: 0o020666, major: 1, minor: 3})
	writeCPIO(&out, entry{name: "modules", mode: 0o040755})
	for i, m := range wantedModules(string(files["modules/order"])) {
		name := fmt.Sprintf("modules/%02d-%s", i, path.Base(m))
		writeCPIO(&out, entry{name: name, mode: 0o100644, content: files[strings.TrimPrefix(m, "/")]})
	}
	writeCPIO(&out, entry{name: "init", mode: 0o100755, content: init})
	writeCPIO(&out, entry{name: "TRAILER!!!"})
	return out.Bytes()
}

// wantedModules picks the modules for the devices under test from lsub's own list. File
// systems would only make each boot longer.
func wantedModules(order string) []string {
	devices := []string{"virtio_blk.ko", "failover.ko", "net_failover.ko", "virtio_net.ko", "virtio_balloon.ko", "virtio-rng.ko",
		// The test guest loads these only in a VM of Hyper-V.
		"hv_vmbus.ko", "hv_sock.ko", "scsi_common.ko", "scsi_mod.ko", "scsi_transport_fc.ko", "hv_storvsc.ko", "sd_mod.ko"}
	var list []string
	for line := range strings.Lines(order) {
		group, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		if group == "vsock" || group == "console" || slices.Contains(devices, path.Base(file)) {
			list = append(list, file)
		}
	}
	return list
}

// readCPIO returns the regular files of a newc archive (cpio(5)).
func readCPIO(b []byte) (map[string][]byte, error) {
	files := map[string][]byte{}
	pad := func(n int) int { return (n + 3) &^ 3 }
	for at := 0; ; {
		if len(b) < at+110 || string(b[at:at+6]) != "070701" {
			return nil, fmt.Errorf("no newc header at byte %d", at)
		}
		field := func(i int) int {
			n, _ := strconv.ParseUint(string(b[at+6+8*i:at+14+8*i]), 16, 32)
			return int(n)
		}
		mode, size, nameLen := field(1), field(6), field(11)
		body := pad(at + 110 + nameLen)
		if nameLen == 0 || len(b) < body+size {
			return nil, fmt.Errorf("the entry at byte %d is cut off", at)
		}
		name := string(b[at+110 : at+110+nameLen-1])
		if name == "TRAILER!!!" {
			return files, nil
		}
		if mode&0o170000 == 0o100000 {
			files[strings.TrimPrefix(name, "/")] = b[body : body+size]
		}
		at = pad(body + size)
	}
}

// entry is a file of a newc archive.
type entry struct {
	name         string
	mode         int
	major, minor int // of a device
	content      []byte
}

func writeCPIO(w *bytes.Buffer, e entry) {
	fmt.Fprintf(w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		w.Len(), e.mode, 0, 0, 1, 0, len(e.content), 0, 0, e.major, e.minor, len(e.name)+1, 0, e.name)
	w.Write(make([]byte, -w.Len()&3))
	w.Write(e.content)
	w.Write(make([]byte, -w.Len()&3))
}
