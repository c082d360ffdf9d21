package e2e

import (
	"bufio"
	"context"
	"strconv"
	"strings"
	"testing"
	"time"
)

// awaitLog waits for a text in the logs.
func (h *host) awaitLog(t *testing.T, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := h.command(ctx, "logs", "-f")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cancel()
	for s := bufio.NewScanner(out); s.Scan(); {
		if strings.Contains(s.Text(), what) {
			return
		}
	}
	t.Errorf("the logs do not say %q", what)
}

// A distro at its limits affects only itself.
func TestLimits(t *testing.T) {
	h := debian(t)
	const limited = "limited"
	h.ok(t, "install", "--name", limited, "--from-file", tarball(t, "tar", archive(t, tinySystem(t))))
	defer h.ok(t, "unregister", "--yes", limited)
	neighbour := h.sh(t, "debian", "setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $!")
	h.sh(t, limited, "setsid sleep 1001 </dev/null >/dev/null 2>&1 &")

	t.Run("memory", func(t *testing.T) {
		h.ok(t, "manage", "--memory-max", "64M", limited)
		if out := h.sh(t, limited, "cat /sys/fs/cgroup/memory.max"); out != "67108864" {
			t.Errorf("its programs see %s", out)
		}
		hog := []string{"exec", limited, "--", "dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"}
		h.fails(t, 137, []string{"lsub: warning: killed: distro limited is out of memory (its limit is 64 MiB)"}, hog...)
		// Its root cannot remove it: neither at the usual place nor in another mount.
		h.sh(t, limited, "echo max >/sys/fs/cgroup/memory.max; mkdir -p /tmp/cg; mount -t cgroup2 none /tmp/cg; test ! -e /tmp/cg/inside")
		h.fails(t, 137, []string{"out of memory"}, hog...)
		// No other process died, in it or beside it.
		h.sh(t, limited, "ps -o args | grep '[s]leep 1001'")
		h.sh(t, "debian", "kill -0 "+neighbour)
		h.awaitLog(t, "the kernel killed processes: distro limited is out of memory")
		// A limit below its use is reported, and kills nothing.
		h.sh(t, limited, "mkdir -p /tmp/m; mount -t tmpfs m /tmp/m; dd if=/dev/zero of=/tmp/m/f bs=1M count=32 2>/dev/null")
		h.fails(t, 125, []string{"of memory now, more than 16 MiB", "lsub: hint: "}, "manage", "--memory-max", "16M", limited)
		h.ok(t, "manage", "--memory-max", "none", limited)
		h.ok(t, hog...)
	})

	t.Run("processes", func(t *testing.T) {
		h.ok(t, "manage", "--pids-max", "40", limited)
		bomb := h.run("exec", limited, "--", "sh", "-c", "while :; do sleep 1002 & done")
		if bomb.code == 0 {
			t.Errorf("nothing stopped it: %s", bomb)
		}
		h.ok(t, "manage", "--pids-max", "30", limited) // the shell has ended, which left room for one
		h.fails(t, 125, []string{"lsub: error: distro limited has as many processes as it may: 30", "lsub: hint: "}, "exec", limited, "--", "true")
		h.sh(t, "debian", "kill -0 "+neighbour)
		h.ok(t, "manage", "--pids-max", "50", limited)
		if out := h.sh(t, limited, "cat /sys/fs/cgroup/pids.max"); out != "50" {
			t.Errorf("its programs see %s", out)
		}
		h.ok(t, "stop", limited)
	})

	t.Run("processors", func(t *testing.T) {
		// Limits also apply from the start.
		h.ok(t, "manage", "--pids-max", "none", "--cpu-max", "0.5", limited)
		if out := h.sh(t, limited, "cat /sys/fs/cgroup/cpu.max"); out != "50000 100000" {
			t.Errorf("its programs see %s", out)
		}
		out := h.sh(t, limited, `now() { read up idle </proc/uptime; while read name value; do [ $name != usage_usec ] || echo $up $value; done </sys/fs/cgroup/cpu.stat; }
sh -c 'while :; do :; done' & a=$!
sh -c 'while :; do :; done' & b=$!
sleep 1; now; sleep 4; now; kill -9 $a $b`)
		f := strings.Fields(out)
		if len(f) != 4 {
			t.Fatalf("the distro's times: %q", out)
		}
		var n [4]float64
		for i := range n {
			n[i], _ = strconv.ParseFloat(f[i], 64)
		}
		share := (n[3] - n[1]) / 1e6 / (n[2] - n[0])
		if share < 0.5*0.85 || share > 0.5*1.15 {
			t.Errorf("it used %.3f CPUs, its limit is 0.5", share)
		}
	})
}
