package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// slow bounds every command: none may hang.
const slow = 10 * time.Minute

// home is a home of lsub's: distros, and a VM.
type home struct {
	b   *bench
	dir string
	bin string
	env []string
}

// newHome returns a home with nothing in it. Its VM ends with the benchmark.
func (b *bench) newHome(name string) (*home, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	h := &home{b: b, dir: dir, bin: filepath.Join(b.dir, "lsub"), env: append(os.Environ(), "LSUB_HOME="+dir)}
	b.homes = append(b.homes, h)
	return h, nil
}

func (h *home) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, h.bin, args...)
	cmd.Env, cmd.Dir = h.env, h.b.dir
	return cmd
}

// lsub runs lsub, which must succeed, and returns how long it took.
func (h *home) lsub(args ...string) (time.Duration, error) {
	return h.pipe(nil, args...)
}

// pipe runs lsub with something to read, and returns how long it took.
func (h *home) pipe(stdin io.Reader, args ...string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(h.b.ctx, slow)
	defer cancel()
	cmd := h.command(ctx, args...)
	cmd.Stdin = stdin
	return h.b.timed(cmd)
}

// output runs lsub and returns what it prints, without white space around it.
func (h *home) output(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(h.b.ctx, slow)
	defer cancel()
	var out bytes.Buffer
	cmd := h.command(ctx, args...)
	cmd.Stdout = &out
	_, err := h.b.timed(cmd)
	return strings.TrimSpace(out.String()), err
}

// timed runs a command and returns how long it took from its start to its end.
// Its errors go to a file, because a pipe would take part in what is measured.
func (b *bench) timed(cmd *exec.Cmd) (time.Duration, error) {
	said, err := os.OpenFile(filepath.Join(b.dir, "stderr"), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return 0, err
	}
	defer said.Close()
	cmd.Stderr = said
	start := time.Now()
	err = cmd.Run()
	took := time.Since(start)
	if st := cmd.ProcessState; st != nil {
		b.spent += st.UserTime() + st.SystemTime()
	}
	if err != nil {
		text, _ := os.ReadFile(said.Name())
		err = fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(text))
	}
	return took, err
}

// shutdown ends the VM where it runs, and returns when it is gone.
func (h *home) shutdown(flags ...string) error {
	// Not the benchmark's context: its end is where this is needed most.
	ctx, cancel := context.WithTimeout(context.Background(), slow)
	defer cancel()
	_, err := h.b.timed(h.command(ctx, append([]string{"shutdown"}, flags...)...))
	return err
}

// status is what "lsub status --json" says, as far as the benchmark is concerned.
type status struct {
	PID     int       `json:"pid"` // of the supervisor
	Started time.Time `json:"started"`
	Kernel  string    `json:"kernel"`
	Memory  struct {
		Total int64 `json:"total"`
		Used  int64 `json:"used"`
	} `json:"memory"`
	Boot []struct {
		Name     string        `json:"name"`
		Start    time.Duration `json:"start_ns"` // after Started
		Duration time.Duration `json:"duration_ns"`
	} `json:"boot"`
}

func (h *home) status() (*status, error) {
	out, err := h.output("status", "--json")
	if err != nil {
		return nil, err
	}
	st := &status{}
	if err := json.Unmarshal([]byte(out), st); err != nil {
		return nil, err
	}
	if st.PID == 0 {
		return nil, errors.New("the VM does not run")
	}
	return st, nil
}

// has tells whether a distro is installed.
func (h *home) has(distro string) bool {
	out, err := h.output("list", "-q")
	return err == nil && strings.Contains("\n"+out+"\n", "\n"+distro+"\n")
}

// tiny installs the distro "tiny", which has no systemd.
func (h *home) tiny() error {
	if h.has("tiny") {
		return nil
	}
	return h.installTiny("tiny")
}

// debian installs the distro "debian"; the first time on a machine, its image
// is built.
func (h *home) debian() error {
	if h.has("debian") {
		return nil
	}
	_, err := h.lsub("install", "debian")
	return err
}

// tinyRoot makes an archive with a root file system of Debian's busybox-static.
func (b *bench) tinyRoot() (string, error) {
	if b.tinyArchive != "" {
		return b.tinyArchive, nil
	}
	source, root := filepath.Join(b.dir, "busybox"), filepath.Join(b.dir, "tiny")
	ctx, cancel := context.WithTimeout(b.ctx, slow)
	defer cancel()
	if _, err := b.timed(exec.CommandContext(ctx, "mmdebstrap", "--quiet", "--variant=extract", "--include=busybox-static", "trixie", source)); err != nil {
		return "", err
	}
	for _, dir := range []string{"bin", "etc", "root", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return "", err
		}
	}
	err := os.Rename(filepath.Join(source, "usr/bin/busybox"), filepath.Join(root, "bin/busybox"))
	for _, name := range []string{"sh", "true", "cat"} {
		err = errors.Join(err, os.Symlink("busybox", filepath.Join(root, "bin", name)))
	}
	err = errors.Join(err, os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644))
	if err != nil {
		return "", err
	}
	f, err := os.Create(filepath.Join(b.dir, "tiny.tar"))
	if err != nil {
		return "", err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	if err := errors.Join(w.AddFS(os.DirFS(root)), w.Close()); err != nil {
		return "", err
	}
	b.tinyArchive = f.Name()
	return b.tinyArchive, nil
}
