package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

const (
	vsockPeer = "vhost-device-vsock (Debian sid)"
	pairPeer  = "the host's own socketpair"
)

// vsock measures the device alone, with the benchmarks of the directory vsock.
func (b *bench) vsock() error {
	if err := b.main.shutdown(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(b.ctx, 2*slow)
	defer cancel()
	program := filepath.Join(b.dir, "vsock.test")
	if _, err := b.timed(exec.CommandContext(ctx, "go", "test", "-c", "-o", program, "./e2e/bench/vsock")); err != nil {
		return err
	}
	args := []string{"-test.run=^$", "-test.bench=.", "-test.benchtime=1x", fmt.Sprint("-runs=", b.times(5, 2))}
	if !b.quick {
		args = append(args, "-mib=256", "-trips=5000")
	}
	root, err := b.vhostDeviceVSock(ctx)
	if err != nil { // ours can be measured without it
		err = fmt.Errorf("the peer: %w", err)
	} else {
		args = append(args, "-peer="+root)
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+b.dir) // gone at the end, however it ends
	cmd.Stdout = &out
	_, runErr := b.timed(cmd)
	if runErr != nil {
		runErr = fmt.Errorf("%w\n%s", runErr, bytes.TrimSpace(out.Bytes()))
	}
	b.report.vsock(parseBenchmarks(out.String()))
	return errors.Join(err, runErr)
}

// vhostDeviceVSock returns a directory with Debian's vhost-device-vsock.
func (b *bench) vhostDeviceVSock(ctx context.Context) (string, error) {
	if b.vsockPeer != "" {
		return filepath.Abs(b.vsockPeer)
	}
	return b.debianPackage("vhost-device-vsock", "sid")
}

// debianPackage returns a directory with a package of a Debian suite and what it
// needs, unpacked, which is made once per machine.
func (b *bench) debianPackage(name, suite string) (string, error) {
	ctx, cancel := context.WithTimeout(b.ctx, slow)
	defer cancel()
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	root := filepath.Join(cache, "lsub-bench", name)
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(filepath.Dir(root), ".new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	tree := filepath.Join(temp, "tree")
	// Not --quiet, which keeps to itself why apt has failed.
	if _, err := b.timed(exec.CommandContext(ctx, "mmdebstrap", "--variant=extract", "--include="+name, suite, tree)); err != nil {
		return "", err
	}
	return root, os.Rename(tree, root)
}

// vsock reports the metrics of parseBenchmarks.
func (r *report) vsock(m map[string]samples) {
	const trip = "vsock: round trip of one byte"
	if ours := m["roundtrip/lsub/µs"]; len(ours) > 0 {
		r.figure(trip, "µs", ours).beside(vsockPeer, m["roundtrip/peer/µs"])
		r.figure(trip+", p95 of each run", "µs", m["roundtrip/lsub/µs-p95"]).beside(vsockPeer, m["roundtrip/peer/µs-p95"])
		r.figure(trip, "µs", ours).beside(pairPeer, m["roundtrip/socketpair/µs"])
	}
	for _, way := range []struct{ name, title string }{{"to-guest", "vsock: host to guest"}, {"to-host", "vsock: guest to host"}} {
		ours := m[way.name+"/lsub/MB/s"]
		if len(ours) == 0 {
			continue
		}
		f := r.figure(way.title, "MB/s", ours).beside(vsockPeer, m[way.name+"/peer/MB/s"])
		if len(m[way.name+"/peer/stalls"]) > 0 {
			if f.Peer == nil {
				f.Peer = &peer{Name: vsockPeer}
			}
			f.Peer.Note = fmt.Sprintf("it stalls: a run had not ended after 30 s; %d runs before it had", f.Peer.N)
		}
		r.figure(way.title, "MB/s", ours).beside(pairPeer, m[way.name+"/socketpair/MB/s"])
	}
}

// benchmarkLine is a line of go test -bench: the name, without the number of
// its repetition and of processors, the number of runs, and metrics.
var benchmarkLine = regexp.MustCompile(`^BenchmarkVSock/([a-z-]+/[a-z]+)(?:#\d+)?(?:-\d+)?\s+1\s+(.*)$`)

// parseBenchmarks returns the values of each "FIGURE/BACKEND/UNIT".
func parseBenchmarks(out string) map[string]samples {
	found := map[string]samples{}
	for line := range strings.Lines(out) {
		m := benchmarkLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		words := strings.Fields(m[2])
		for i := 0; i+1 < len(words); i += 2 {
			if v, err := strconv.ParseFloat(words[i], 64); err == nil {
				key := m[1] + "/" + words[i+1]
				found[key] = append(found[key], v)
			}
		}
	}
	return found
}
