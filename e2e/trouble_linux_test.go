package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// tiny returns a host for one test, with the distro "tiny". Its VM is off.
func tiny(t *testing.T) *host {
	t.Helper()
	h := fresh(t)
	h.installTiny(t)
	h.ok(t, "shutdown")
	return h
}

func (h *host) installTiny(t *testing.T) {
	t.Helper()
	h.ok(t, "install", "--name", "tiny", "--from-file", tarball(t, "tar", archive(t, tinySystemOf(t, h.arch))))
}

// supervisor returns the process ids of the host's supervisor and its QEMU.
func (h *host) supervisor(t *testing.T) (pid, qemu int) {
	t.Helper()
	var st struct{ PID int }
	out := h.ok(t, "status", "--json")
	if err := json.Unmarshal([]byte(out), &st); err != nil || st.PID == 0 {
		t.Fatalf("status --json has no pid: %v\n%s", err, out)
	}
	pid = st.PID
	b, err := exec.Command("pgrep", "-P", strconv.Itoa(pid), "qemu").Output()
	if err != nil {
		t.Fatalf("the supervisor %d has no QEMU: %v", pid, err)
	}
	qemu, err = strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return pid, qemu
}

// waitGone waits for the end of a process that is not our child.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	out, err := exec.Command("tail", "--pid="+strconv.Itoa(pid), "-s", "0.05", "-f", "/dev/null").CombinedOutput()
	if err != nil {
		t.Fatalf("wait for %d: %v: %s", pid, err, out)
	}
}

// Whatever is killed, the running command fails at once with a message. The next one works
// and reports the cause in a line, and flushed data is there.
func TestKill(t *testing.T) {
	h := tiny(t)
	for _, victim := range []string{"supervisor", "qemu"} {
		t.Run(victim, func(t *testing.T) {
			h.ok(t, "exec", "tiny", "--", "sh", "-c", "echo "+victim+" >/root/kept; sync")
			pid, qemu := h.supervisor(t)
			cmd := h.command(t.Context(), "exec", "tiny", "--", "sh", "-c", "echo on; sleep 1000")
			var errOut bytes.Buffer
			cmd.Stderr = &errOut
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := out.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			kill := map[string]int{"supervisor": pid, "qemu": qemu}[victim]
			if err := syscall.Kill(kill, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != 125 || !strings.Contains(errOut.String(), "lsub: error: ") {
				t.Errorf("the running command ended with %d: %s", code, errOut.String())
			}
			waitGone(t, pid)
			waitGone(t, qemu)
			r := h.run("exec", "tiny", "--", "cat", "/root/kept")
			if r.code != 0 || strings.TrimSpace(r.out) != victim {
				t.Error(r)
			}
			if strings.Count(r.err, "starting afresh\n") != 1 {
				t.Errorf("want one line that says what happened: %s", r)
			}
			if again := h.run("exec", "tiny", "--", "true"); strings.Contains(again.err, "afresh") {
				t.Errorf("said twice: %s", again)
			}
		})
	}
}

// Two simultaneous commands, with the VM off, start one VM.
func TestTwoAtOnce(t *testing.T) {
	h := tiny(t)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			if r := h.run("exec", "tiny", "--", "echo", fmt.Sprint(i)); r.out != fmt.Sprintln(i) || r.err != "" && !strings.Contains(r.err, "emulation") {
				t.Error(r)
			}
		})
	}
	wg.Wait()
	h.supervisor(t) // fails if there are two QEMUs
}

// An interrupted install leaves nothing behind.
func TestInterruptedInstall(t *testing.T) {
	h := debian(t)
	before := h.ok(t, "list", "--json")
	big := append(tinySystem(t), file("./big", strings.Repeat("0123456789abcdef", 200<<16)))
	file := tarball(t, "tar", archive(t, big))
	cmd := h.command(t.Context(), "install", "--name", "never", "--from-file", file)
	errOut, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The first output of the progress: it has started.
	if _, err := errOut.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Signal(os.Interrupt)
	go func() { _, _ = new(bytes.Buffer).ReadFrom(errOut) }()
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit %d, want 130", code)
	}
	if after := h.ok(t, "list", "--json"); after != before {
		t.Errorf("the list was\n%s\nand is\n%s", before, after)
	}
	h.fails(t, 125, nil, "exec", "never", "--", "true")
}

// The host's disk fills up while the VM writes: the command blocks and says why. When there
// is room again, it continues, and nothing is lost.
func TestHostDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounts a small file system, which takes root; LSUB_TEST_VM runs as root in CI")
	}
	h := fresh(t)
	small := filepath.Join(h.dir, "home")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=256m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.run("shutdown", "--force"); syscall.Unmount(small, syscall.MNT_DETACH) })
	h.installTiny(t)
	hog := filepath.Join(small, "hog")
	cmd := h.command(t.Context(), "exec", "tiny", "--", "sh", "-c", "dd if=/dev/urandom of=/root/big bs=1M count=100 && sync && wc -c </root/big")
	var out bytes.Buffer
	cmd.Stdout = &out
	errOut, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hog, bytes.Repeat([]byte{1}, 200<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	buf := make([]byte, 1024)
	for !strings.Contains(said.String(), "full") {
		n, err := errOut.Read(buf)
		said.Write(buf[:n])
		if err != nil {
			t.Fatalf("the command ended and did not say that the disk is full: %s%s", said.String(), out.String())
		}
	}
	if st := h.ok(t, "status"); !strings.Contains(st, "full") {
		t.Errorf("status does not say it: %s", st)
	}
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	said.ReadFrom(errOut)
	if err := cmd.Wait(); err != nil || strings.TrimSpace(out.String()) != "104857600" {
		t.Errorf("%v: %s%s", err, out.String(), said.String())
	}
}

// Everything also works as an ordinary user, who owns nothing but a home.
func TestOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("makes a user, which takes root; as another user the whole suite is this test")
	}
	h := fresh(t)
	u := scratchUser(t)
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	h.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	h.bin = readableBinary(t, h)
	h.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + u.HomeDir, "USER=" + u.Username, "LSUB_HOME=" + filepath.Join(u.HomeDir, "lsub home")}
	h.ok(t, "install", "debian")
	if out := h.ok(t, "exec", "debian", "--", "sh", "-c", "id -un; id -u; pwd; systemctl --user is-system-running --wait; sudo id -un"); out != fmt.Sprintf("%s\n%d\n/home/%s\nrunning\nroot", u.Username, uid, u.Username) {
		t.Errorf("in the distro: %s", out)
	}
	if out := h.sh(t, "debian", "systemctl is-system-running --wait"); out != "running" {
		t.Errorf("is-system-running: %s", out)
	}
	x := openTerminal(t, h)
	x.expect(u.Username + "@debian") // in colours
	x.send("exit\n")
	<-x.done
	h.fails(t, 7, nil, "run", "debian", "--", "sh", "-c", "exit 7")
	h.ok(t, "unregister", "--yes", "debian")
	h.ok(t, "shutdown")
}

// scratchUser creates a user as adduser does, with a home and subordinate ids.
func scratchUser(t *testing.T) *user.User {
	t.Helper()
	name := fmt.Sprintf("lsubtest%d", os.Getpid()%10000)
	if out, err := exec.Command("useradd", "--create-home", "--user-group", name).CombinedOutput(); err != nil {
		t.Fatalf("useradd: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("userdel", "--remove", name).Run() })
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// readableBinary copies bin/lsub to a place that any user can reach.
func readableBinary(t *testing.T, h *host) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lsub-bin-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(h.bin)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(dir, "lsub")
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return to
}
