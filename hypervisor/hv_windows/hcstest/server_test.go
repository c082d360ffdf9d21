package hcstest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/lsub/lsub/hypervisor/hv_windows/hcstest"
	"github.com/lsub/lsub/hypervisor/hvtest"
)

// TestServer follows a machine of a server: paths of Windows, streams both ways, its end.
func TestServer(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"kernel", "initrd"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte(f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	listening := make(chan struct{})
	fake := &hvtest.Fake{Guest: func(g *hvtest.Guest) error {
		l, err := g.Listen(1024)
		if err != nil {
			return err
		}
		close(listening)
		c, err := l.Accept()
		if err != nil {
			return err
		}
		defer c.Close()
		back, err := g.Dial(7)
		if err != nil {
			return err
		}
		defer back.Close()
		// What comes to port 1024 goes to port 7 of the host. The machine lives until that is read.
		if _, err := io.Copy(back, c); err != nil {
			return err
		}
		back.(interface{ CloseWrite() error }).CloseWrite()
		io.Copy(io.Discard, back)
		return nil
	}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &hcstest.Server{Host: &hcstest.Host{Engine: fake, Windows: hcstest.Windows()}, Path: func(p string) string {
		return filepath.Join(dir, strings.TrimPrefix(p, `C:\`))
	}}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		l.Close()
		<-served
	}()
	address := l.Addr().String()
	say := func(format string, args ...any) (net.Conn, string) {
		t.Helper()
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprintf(c, format, args...)
		return c, line(t, c)
	}
	document := machine(t)
	if _, got := say("create ID %d\n%s", len(document), document); !strings.HasPrefix(got, "error 80070005 ") {
		t.Errorf("a machine whose files were not granted: %q", got)
	}
	for _, f := range []string{"kernel", "initrd"} {
		if _, got := say("grant ID C:\\%s\n", f); got != "ok" {
			t.Fatalf("grant: %q", got)
		}
	}
	life, got := say("create ID %d\n%s", len(document), document)
	runtime, ok := strings.CutPrefix(got, "ok ")
	if !ok {
		t.Fatalf("create: %q", got)
	}
	if _, got := say("start nobody\n"); !strings.HasPrefix(got, "error 8037010E ") {
		t.Errorf("the start of no machine: %q", got)
	}
	if _, got := say("start %s\n", runtime); got != "ok" {
		t.Fatalf("start: %q", got)
	}
	remote := &hcstest.Remote{Address: address}
	if _, err := remote.Dial(t.Context(), "nobody", 1); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a dial of no machine: %v", err)
	}
	ln, err := remote.Listen(runtime, 7)
	if err != nil {
		t.Fatal(err)
	}
	<-listening
	to, err := remote.Dial(context.Background(), runtime, 1024)
	if err != nil {
		t.Fatal(err)
	}
	from, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(to, "there and back")
	to.(interface{ CloseWrite() error }).CloseWrite()
	if b, err := io.ReadAll(from); string(b) != "there and back" {
		t.Errorf("through the guest came %q (%v)", b, err)
	}
	from.Close()
	if got := line(t, life); !strings.HasPrefix(got, `exit {"Status":0,"ExitType":"GracefulExit"`) {
		t.Errorf("its end: %q", got)
	}
	if _, err := ln.Accept(); err == nil {
		t.Error("the listener outlives its machine")
	}
}

// line reads a line, and nothing after it.
func line(t *testing.T, r io.Reader) string {
	t.Helper()
	var text strings.Builder
	for b := make([]byte, 1); ; {
		if _, err := r.Read(b); err != nil {
			t.Fatalf("after %q: %v", text.String(), err)
		}
		if b[0] == '\n' {
			return text.String()
		}
		text.WriteByte(b[0])
	}
}

// machine is a document of few devices.
func machine(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("../testdata/documents/bare.json")
	if err != nil {
		t.Fatal(err)
	}
	var d map[string]any
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	chipset := d["VirtualMachine"].(map[string]any)["Chipset"].(map[string]any)
	chipset["LinuxKernelDirect"] = map[string]any{"KernelFilePath": `C:\kernel`, "InitRdPath": `C:\initrd`, "KernelCmdLine": "quiet"}
	b, err = json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestWinePath follows the links of a prefix.
func TestWinePath(t *testing.T) {
	prefix := t.TempDir()
	drives := filepath.Join(prefix, "dosdevices")
	if err := errors.Join(os.Mkdir(drives, 0o700), os.Mkdir(filepath.Join(prefix, "drive_c"), 0o700),
		os.Symlink("../drive_c", filepath.Join(drives, "c:")), os.Symlink("/", filepath.Join(drives, "z:"))); err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string]string{
		`Z:\tmp\Zoë home\x`: "/tmp/Zoë home/x", `c:\a`: filepath.Join(prefix, "drive_c", "a"), "plain": "plain",
	} {
		if got := hcstest.WinePath(prefix)(from); got != want {
			t.Errorf("%s is %s, want %s", from, got, want)
		}
	}
}
