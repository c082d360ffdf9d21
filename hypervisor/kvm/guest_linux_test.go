package kvm

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/hvtest"
	"github.com/lsub/lsub/images/guestimage"
)

// guestDirEnv hands the guest's files to a test process that cannot make them: of another
// user, or in a VM. With makeGuestEnv the tests only make them, in that directory.
const (
	guestDirEnv  = "LSUB_TEST_GUEST_DIR"
	makeGuestEnv = "LSUB_TEST_MAKE_GUEST"
)

// guestDir holds the kernel and initrd that the tests boot. TestMain makes it if VMs are to
// be tested.
var guestDir string

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		helper()
		return
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir := os.Getenv(makeGuestEnv)
	only := dir != ""
	var err error
	if !only {
		if guestDir = os.Getenv(guestDirEnv); guestDir != "" || os.Getenv("LSUB_TEST_VM") != "1" {
			return m.Run()
		}
		if dir, err = os.MkdirTemp("", "lsub-kvm"); err == nil {
			defer os.RemoveAll(dir)
		}
	}
	if err == nil {
		err = makeGuest(dir, runtime.GOARCH)
	}
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "the guest of the tests:", err)
		return 1
	case only:
		return 0
	}
	guestDir = dir
	return m.Run()
}

// needVM skips the test unless VMs are to be tested.
func needVM(t *testing.T) {
	t.Helper()
	if guestDir == "" {
		t.Skip("set LSUB_TEST_VM=1 to run the tests that boot a VM")
	}
}

// makeGuest puts a kernel and an initrd with the test guest for an architecture into dir.
func makeGuest(dir, arch string) error {
	if err := os.Chmod(dir, 0o755); err != nil { // for the test as an ordinary user
		return err
	}
	cache := filepath.Join(dir, "cache")
	g, err := guestimage.OpenDir(context.Background(), "../../images/guestimage/embedded/"+arch, cache)
	if err != nil {
		return err
	}
	defer os.RemoveAll(cache)
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", filepath.Join(dir, "init"), "../hvtest/testguest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
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
	var out bytes.Buffer
	writeCPIO(&out, "modules", 0o040755, nil)
	for i, m := range wantedModules(string(files["modules/order"])) {
		writeCPIO(&out, fmt.Sprintf("modules/%02d-%s", i, path.Base(m)), 0o100644, files[strings.TrimPrefix(m, "/")])
	}
	writeCPIO(&out, "init", 0o100755, init)
	writeCPIO(&out, "TRAILER!!!", 0, nil)
	if err := os.WriteFile(filepath.Join(dir, "initrd"), out.Bytes(), 0o644); err != nil {
		return err
	}
	kernel, err := os.ReadFile(g.Kernel)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "kernel"), kernel, 0o644)
}

// wantedModules picks the modules for the devices under test from lsub's own list. File
// systems would only make each boot longer.
func wantedModules(order string) []string {
	devices := []string{"virtio_blk.ko", "failover.ko", "net_failover.ko", "virtio_net.ko", "virtio_balloon.ko", "virtio-rng.ko"}
	var list []string
	for line := range strings.Lines(order) {
		group, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		if group == "vsock" || slices.Contains(devices, path.Base(file)) {
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

func writeCPIO(w *bytes.Buffer, name string, mode int, content []byte) {
	fmt.Fprintf(w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		w.Len(), mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
	w.Write(make([]byte, -w.Len()&3))
	w.Write(content)
	w.Write(make([]byte, -w.Len()&3))
}

// config returns the tests' configuration of a VM.
func config(t *testing.T) hypervisor.Config {
	t.Helper()
	needVM(t)
	return configOf(t, guestDir)
}

// configOf returns the configuration of a VM that boots what makeGuest has put into guestDir.
func configOf(t *testing.T, guestDir string) hypervisor.Config {
	t.Helper()
	// Not t.TempDir: its path is too long for a socket.
	dir, err := os.MkdirTemp("", "kvm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return hypervisor.Config{
		Name: "test", Dir: dir,
		Kernel: filepath.Join(guestDir, "kernel"), Initrd: filepath.Join(guestDir, "initrd"),
		Cmdline: "quiet", CPUs: 2, Memory: 256 << 20,
		Console: filepath.Join(dir, "console"), Logger: testLogger(t),
	}
}

// harness boots the guest with a driver that uses KVM or TCG, as the machine allows. The
// variables LSUB_ACCEL and LSUB_VSOCK choose, as they do for lsub.
func harness() hvtest.Harness {
	return hvtest.Harness{
		Driver: New(Options{Accel: Accel(os.Getenv("LSUB_ACCEL")), VSock: VSock(os.Getenv("LSUB_VSOCK"))}), Config: config,
		Kill: func(t *testing.T, v hypervisor.VM) {
			if err := v.(*vm).qemu.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		},
	}
}
