package shareproc

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lsub/lsub/share"
)

// TestMain is also the process of a share, and one that says what it may reach.
func TestMain(m *testing.M) {
	switch os.Getenv("LSUB_TEST_PROCESS") {
	case "serve":
		if err := Main(slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	case "reach":
		dir := os.Getenv("LSUB_TEST_DIR")
		_, rep := open(share.Config{Dir: dir, Writable: true})
		fmt.Println("warning:", rep.Warning)
		_, err := os.ReadFile(filepath.Join(dir, "inside"))
		fmt.Println("inside:", err)
		_, err = os.ReadFile(filepath.Join(dir, "../outside"))
		fmt.Println("outside:", err)
		_, err = os.ReadDir("/etc")
		fmt.Println("etc:", err)
		fmt.Println("write:", os.WriteFile(filepath.Join(dir, "../new"), nil, 0o600))
		fmt.Println("link:", os.Rename(filepath.Join(dir, "inside"), filepath.Join(dir, "sub/inside")))
		_, err = net.Dial("tcp", os.Getenv("LSUB_TEST_ADDRESS"))
		fmt.Println("dial:", err)
		return
	}
	os.Exit(m.Run())
}

func process(t *testing.T, cfg share.Config) *Process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("LSUB_TEST_PROCESS", "serve")
	p := New(Config{Argv: []string{exe}, Share: cfg, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	t.Cleanup(func() { p.Close() })
	return p
}

// statfs sends a request on a stream, and returns the error of its answer.
func statfs(t *testing.T, conn net.Conn) (int32, error) {
	t.Helper()
	le := binary.LittleEndian
	var m [40]byte
	le.PutUint32(m[0:], uint32(len(m)))
	le.PutUint32(m[4:], 17)
	le.PutUint64(m[8:], 7)
	le.PutUint64(m[16:], 1)
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := conn.Write(m[:]); err != nil {
		return 0, err
	}
	var h [16]byte
	if _, err := io.ReadFull(conn, h[:]); err != nil {
		return 0, err
	}
	_, err := io.CopyN(io.Discard, conn, int64(le.Uint32(h[:])-16))
	return -int32(le.Uint32(h[4:])), err
}

func TestProcess(t *testing.T) {
	p := process(t, share.Config{Dir: t.TempDir()})
	if p.PID() != 0 {
		t.Error("it runs before it is used")
	}
	var conns []net.Conn
	for range 2 {
		c, err := p.Connect(t.Context(), Stream)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
		if errno, err := statfs(t, c); errno != 0 || err != nil {
			t.Fatal(errno, err)
		}
	}
	pid := p.PID()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, c := range conns {
		if _, err := statfs(t, c); err == nil {
			t.Error("a process that was killed answers")
		}
	}
	<-p.run.done
	c, err := p.Connect(t.Context(), Stream)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if errno, err := statfs(t, c); errno != 0 || err != nil || p.PID() == pid {
		t.Error(errno, err, p.PID(), pid)
	}
	p.Close()
	if _, err := statfs(t, c); err == nil {
		t.Error("it answers after Close")
	}
	if _, err := p.Connect(t.Context(), Stream); err == nil {
		t.Error("it starts after Close")
	}
}

func TestNoDirectory(t *testing.T) {
	p := process(t, share.Config{Dir: filepath.Join(t.TempDir(), "missing")})
	if err := p.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := process(t, share.Config{Dir: t.TempDir()}).Connect(ctx, Stream); err == nil {
		t.Error("started by a context that is done")
	}
}

// TestShutIn checks what the process may reach once it is shut in.
func TestShutIn(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "share")
	for _, d := range []string{dir, filepath.Join(dir, "sub")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{filepath.Join(top, "outside"), filepath.Join(dir, "inside")} {
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "LSUB_TEST_PROCESS=reach", "LSUB_TEST_DIR="+dir, "LSUB_TEST_ADDRESS="+l.Addr().String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if strings.Contains(string(out), "not shut in") {
		t.Skip("this kernel has no Landlock")
	}
	said := map[string]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		said[key] = strings.TrimSpace(value)
	}
	for _, key := range []string{"inside", "link"} {
		if said[key] != "<nil>" {
			t.Errorf("%s: %s", key, said[key])
		}
	}
	for _, key := range []string{"outside", "etc", "write"} {
		if !strings.Contains(said[key], "permission denied") {
			t.Errorf("%s: %s", key, said[key])
		}
	}
	if said["dial"] == "<nil>" {
		t.Log("the kernel's Landlock does not know networks")
	}
}
