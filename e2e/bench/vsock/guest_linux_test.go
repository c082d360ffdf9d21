package vsock

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lsub/lsub/images/guestimage"
)

// guest is what QEMU boots: lsub's kernel with the guest of the drivers' tests.
type guest struct{ kernel, initrd string }

// modules are those that vsock takes, in the order in which they are loaded.
var modules = []string{"vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport"}

func makeGuest(b *testing.B) *guest {
	b.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		b.Fatal(err)
	}
	g, err := guestimage.Open(context.Background(), filepath.Join(cache, "lsub"))
	if err != nil {
		b.Fatal(err)
	}
	archive, err := os.ReadFile(g.Initrd)
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	init := filepath.Join(dir, "init")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", init, "github.com/lsub/lsub/hypervisor/hvtest/testguest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v: %v: %s", build.Args, err, out)
	}
	program, err := os.ReadFile(init)
	if err != nil {
		b.Fatal(err)
	}
	var out bytes.Buffer
	writeCPIO(&out, "modules", 0o040755, nil)
	for i, m := range modules {
		file := findCPIO(archive, "modules/"+m+".ko")
		if file == nil {
			b.Fatalf("%s has no module %s", g.Initrd, m)
		}
		writeCPIO(&out, fmt.Sprintf("modules/%d-%s.ko", i, m), 0o100644, file)
	}
	writeCPIO(&out, "init", 0o100755, program)
	writeCPIO(&out, "TRAILER!!!", 0, nil)
	initrd := filepath.Join(dir, "initrd")
	if err := os.WriteFile(initrd, out.Bytes(), 0o644); err != nil {
		b.Fatal(err)
	}
	return &guest{g.Kernel, initrd}
}

// findCPIO returns a file of a newc archive (cpio(5)), or nil.
func findCPIO(b []byte, name string) []byte {
	pad := func(n int) int { return (n + 3) &^ 3 }
	for at := 0; len(b) >= at+110 && string(b[at:at+6]) == "070701"; {
		field := func(i int) int {
			n, _ := strconv.ParseUint(string(b[at+6+8*i:at+14+8*i]), 16, 32)
			return int(n)
		}
		size, nameLen := field(6), field(11)
		body := pad(at + 110 + nameLen)
		if nameLen == 0 || len(b) < body+size {
			return nil
		}
		if strings.TrimPrefix(string(b[at+110:at+109+nameLen]), "./") == name {
			return b[body : body+size]
		}
		at = pad(body + size)
	}
	return nil
}

func writeCPIO(w *bytes.Buffer, name string, mode int, content []byte) {
	fmt.Fprintf(w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		w.Len(), mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
	w.Write(make([]byte, -w.Len()&3))
	w.Write(content)
	w.Write(make([]byte, -w.Len()&3))
}

// boot boots the guest with a vsock backend, and returns once it serves. The VM
// ends with b.
func (g *guest) boot(b *testing.B, start func(b *testing.B, path string) (dialer, net.Listener)) dialer {
	b.Helper()
	dir, err := os.MkdirTemp("", "lsub-vsock") // b.TempDir is too long for a socket
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "vhost")
	d, ready := start(b, path)
	defer ready.Close()
	board, console := "q35", "ttyS0"
	if runtime.GOARCH == "arm64" {
		board, console = "virt", "ttyAMA0"
	}
	log := filepath.Join(dir, "console")
	// As package kvm starts it, less the devices that are not used here. Always
	// emulated, so that the figures of different machines can be compared.
	run(b, "QEMU", "qemu-system-"+unameMachine(), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", board+",memory-backend=ram", "-accel", "tcg,thread=multi,tb-size=128", "-cpu", "max", "-smp", "2", "-m", "256M",
		"-object", "memory-backend-memfd,id=ram,size=256M,share=on", "-kernel", g.kernel, "-initrd", g.initrd,
		"-append", "console="+console+" panic=-1 quiet", "-serial", "file:"+log,
		"-chardev", "socket,id=vsock,path="+path, "-device", "vhost-user-vsock-pci,chardev=vsock")
	accepted := make(chan error, 1)
	go func() {
		c, err := ready.Accept()
		if err == nil {
			c.Close()
		}
		accepted <- err
	}()
	select {
	case err = <-accepted:
	case <-time.After(bootTimeout):
		err = fmt.Errorf("the guest does not come up")
	}
	if err != nil {
		text, _ := os.ReadFile(log)
		b.Fatalf("%v; its console:\n%s", err, text)
	}
	return d
}

// run runs a program until the end of b, or of this process.
func run(b *testing.B, name string, args ...string) {
	b.Helper()
	var said bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		// The signal comes when the thread ends that started it; so it is kept.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
		if b.Failed() {
			b.Logf("%s: %s", name, said.Bytes())
		}
	})
}
