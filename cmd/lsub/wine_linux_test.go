package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lsub/lsub/hypervisor/hv_windows/hcstest"
	"github.com/lsub/lsub/hypervisor/kvm"
)

// TestWine runs lsub.exe under Wine in the real guest. Its computecore.dll has this process
// start the guest with QEMU, of the document that lsub.exe has written; Hyper-V's sockets are
// TCP to this process. tools/wine runs it.
func TestWine(t *testing.T) {
	program, prefix := os.Getenv("LSUB_TEST_WINE"), os.Getenv("WINEPREFIX")
	if program == "" || prefix == "" || os.Getenv("LSUB_TEST_VM") != "1" {
		t.Skip("'tools/wine guest' runs this")
	}
	host := &hcstest.Host{Engine: kvm.New(kvm.Options{DiskFormat: "vhdx"}), Windows: hcstest.Windows(), ReadsVHDX: true}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &hcstest.Server{Host: host, Path: hcstest.WinePath(prefix)}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		l.Close()
		<-served
	})
	cache := filepath.Join(filepath.Dir(filepath.Dir(program)), "local")
	testscript.Run(t, testscript.Params{
		Dir: "testdata/wine", RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			for key, value := range map[string]string{
				"LSUB": program, "WINEPREFIX": prefix, "WINEDEBUG": "-all", "DISPLAY": "", "LC_ALL": "C.UTF-8", "WINEDLLOVERRIDES": os.Getenv("WINEDLLOVERRIDES"),
				"HOME": os.Getenv("HOME"), "LSUB_HCS_SCHEMA": os.Getenv("LSUB_HCS_SCHEMA"), "LSUB_HCS_HOST": fmt.Sprint(l.Addr().(*net.TCPAddr).Port),
				"LSUB_HOME": windowsPath(filepath.Join(e.WorkDir, "Zoë home")), "LOCALAPPDATA": windowsPath(cache),
				"PROFILE": filepath.Join(e.WorkDir, "Zoë home", "profiles", "default"), "LSUB_LOG_LEVEL": "debug",
			} {
				e.Setenv(key, value)
			}
			bin := filepath.Join(e.WorkDir, ".bin")
			e.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			env := e.Vars
			e.Defer(func() {
				cmd := exec.Command(filepath.Join(bin, "lsub"), "shutdown", "--force")
				cmd.Env = env
				if out, err := cmd.CombinedOutput(); err != nil {
					e.T().Log(string(out))
				}
			})
			return errors.Join(os.Mkdir(bin, 0o700), os.WriteFile(filepath.Join(bin, "lsub"), []byte(lsubExe), 0o700))
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": scriptStatus, "talk": scriptTalk, "eventually": scriptEventually, "freeport": scriptFreePort,
			"busybox": scriptBusybox,
			// hcsdiag kill, of Windows.
			"hcsdiag-kill": func(ts *testscript.TestScript, _ bool, _ []string) {
				systems := host.Systems()
				ts.Check(systems[len(systems)-1].Terminate())
			},
			"crash": scriptCrashWine,
		},
	})
	for _, s := range host.Systems() {
		if vm := s.VM(); vm != nil {
			vm.Wait() // none is left
		}
	}
}

// lsubExe runs lsub.exe. Wine's processes keep the stderr of the first one for as long as they
// run; it may be no pipe, whose end somebody waits for.
const lsubExe = `#!/bin/sh
err=$(mktemp "$WORK/.tmp/err.XXXXXX")
wine "$LSUB" "$@" 2>"$err"
status=$?
cat "$err" >&2
exit $status
`

// windowsPath is Wine's path of a file.
func windowsPath(path string) string { return `Z:` + strings.ReplaceAll(path, "/", `\`) }

// busybox FILE writes an archive of a distro that has busybox alone.
func scriptBusybox(ts *testscript.TestScript, _ bool, args []string) {
	program, err := exec.LookPath("busybox")
	ts.Check(err)
	body, err := os.ReadFile(program)
	ts.Check(err)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, dir := range []string{"./", "./bin/", "./etc/", "./root/", "./tmp/"} {
		ts.Check(w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}))
	}
	const passwd = "root:x:0:0:root:/root:/bin/sh\n"
	ts.Check(w.WriteHeader(&tar.Header{Name: "./etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(passwd))}))
	w.Write([]byte(passwd))
	ts.Check(w.WriteHeader(&tar.Header{Name: "./bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(body))}))
	w.Write(body)
	for _, name := range []string{"sh", "cat", "echo", "uname", "nc", "nslookup", "sync", "touch", "ls"} {
		ts.Check(w.WriteHeader(&tar.Header{Name: "./bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox"}))
	}
	ts.Check(w.Close())
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b.Bytes(), 0o600))
}

// scriptCrashWine has Wine end the supervisor's process at once, as the task manager does.
func scriptCrashWine(ts *testscript.TestScript, _ bool, _ []string) {
	b, err := os.ReadFile(filepath.Join(ts.Getenv("PROFILE"), "supervisor.json"))
	ts.Check(err)
	var rec struct {
		PID int `json:"pid"`
	}
	ts.Check(json.Unmarshal(b, &rec))
	ts.Check(ts.Exec("wine", "taskkill", "/f", "/pid", fmt.Sprint(rec.PID)))
}
