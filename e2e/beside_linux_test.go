package e2e

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// openShell runs a line of the host's shell at a terminal; $L is "lsub -d debian".
func openShell(t *testing.T, h *host, dir, line string) *terminal {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), slow)
	cmd := exec.CommandContext(ctx, "sh", "-c", "trap : INT\n"+line+"\necho rc=$?; stty -a </dev/tty | grep -qw -- -icanon && echo raw || echo cooked; echo end")
	cmd.Env = append(append([]string(nil), h.env...), "L="+h.bin+" -d debian")
	cmd.Dir = dir
	return startTerminal(t, cancel, cmd)
}

// ends wants the line to end with a status, and the terminal as it was.
func (x *terminal) ends(code string) {
	x.t.Helper()
	x.expect("rc=" + code)
	if shown := x.expect("end"); !strings.Contains(shown, "cooked") {
		x.t.Errorf("the terminal is not as it was: %q", shown)
	}
}

// TestTerminalBesidePipes: commands have lsub's terminal as /dev/tty while their streams are
// pipes, and what is typed is theirs only while they wait for it.
func TestTerminalBesidePipes(t *testing.T) {
	h := debian(t)
	h.ok(t, "start", "debian")
	dir := t.TempDir()
	open := func(t *testing.T, line string) *terminal { return openShell(t, h, dir, line) }

	t.Run("read", func(t *testing.T) {
		x := open(t, `printf '1\n2\n3\n' | $L sh -c 'printf name? >/dev/tty; read x </dev/tty; echo got $x; wc -l'`)
		x.expect("name?")
		x.send("Ann\n")
		x.expect("got Ann")
		x.expect("3")
		x.ends("0")
	})
	t.Run("password", func(t *testing.T) {
		x := open(t, `echo x | $L sh -c 'stty -echo </dev/tty; printf Password: >/dev/tty; read x </dev/tty; stty echo </dev/tty; echo got $x' | cat`)
		x.expect("Password:")
		x.send("secret\n")
		if shown := x.expect("got secret"); strings.Contains(shown, "secret") {
			t.Errorf("the password was shown: %q", shown)
		}
		x.ends("0")
	})
	t.Run("less", func(t *testing.T) {
		x := open(t, `seq 1 500 | $L less`)
		x.expect("\x1b[?1049h") // the alternate screen
		x.send("G")
		x.expect("500")
		x.send("q")
		x.expect("\x1b[?1049l")
		x.ends("0")
	})
	t.Run("8-bit", func(t *testing.T) {
		in := make([]byte, 1<<20)
		for i := range in {
			in[i] = byte(rand.Uint32())
		}
		if err := os.WriteFile(filepath.Join(dir, "in"), in, 0o600); err != nil {
			t.Fatal(err)
		}
		x := open(t, `$L sh -c 'printf first? >/dev/tty; read x </dev/tty; cat; printf last? >/dev/tty; read y </dev/tty; echo $x $y >&2' <in >out 2>err; cmp in out && cat err`)
		x.expect("first?")
		x.send("one\n")
		x.expect("last?")
		x.send("two\n")
		x.expect("one two")
		x.ends("0")
	})
	t.Run("the streams that are the terminal", func(t *testing.T) {
		const what = `sh -c 'for i in 0 1 2; do test -t $i; echo $?; done'`
		for line, want := range map[string]string{
			": | $L " + what:        "1 0 0",
			"$L " + what + " | cat": "0 1 0",
			"$L " + what + " 2>err": "0 0 1",
		} {
			x := open(t, line)
			shown := x.expect("end")
			if got := strings.Join(strings.Fields(shown), " "); !strings.HasSuffix(got, want+" rc=0 cooked") {
				said, _ := os.ReadFile(filepath.Join(dir, "err"))
				t.Logf("err: %s", said)
				t.Errorf("%s: %q, want %q", line, got, want)
			}
		}
	})
	t.Run("input that is the terminal", func(t *testing.T) {
		x := open(t, `$L sh -c 'echo ready >&2; cat' | tr a-z A-Z`)
		x.expect("ready")
		x.send("by hand\n")
		x.expect("BY HAND")
		x.send("\x04")
		x.ends("0")
	})
	t.Run("a poll", func(t *testing.T) { // as node does it; bash polls with -t
		x := open(t, `$L bash -c 'echo ready >&2; read -t 600 x; echo got $x' | cat`)
		x.expect("ready")
		x.send("polled\n")
		x.expect("got polled")
		x.ends("0")
	})
	t.Run("a program of the host", func(t *testing.T) {
		x := open(t, `$L sh -c 'echo runs; exec sleep 1000' | { read runs; stty raw -echo </dev/tty; printf keys? >/dev/tty; head -c 2000 </dev/tty >keys; stty sane </dev/tty; echo all; }`)
		x.expect("keys?")
		keys := strings.Repeat("0123456789", 200)
		for i := 0; i < len(keys); i += 50 {
			x.send(keys[i : i+50])
		}
		x.expect("all")
		if got, err := os.ReadFile(filepath.Join(dir, "keys")); err != nil || string(got) != keys {
			t.Errorf("it got %d keys of %d, %v: %q", len(got), len(keys), err, got)
		}
		x.send("\x03")
		x.expect("rc=")
	})
	t.Run("given back", func(t *testing.T) {
		x := open(t, `$L sh -c 'printf name? >/dev/tty; read x </dev/tty; echo $x; exec sleep 1000' | { read name; until stty -a </dev/tty | grep -q " icanon"; do :; done; printf keys? >/dev/tty; read line </dev/tty; echo host has $line; }`)
		x.expect("name?")
		x.send("Ann\n")
		x.expect("keys?")
		x.send("the rest\n")
		x.expect("host has the rest")
		x.send("\x03")
		x.expect("rc=")
	})
	t.Run("size", func(t *testing.T) {
		x := open(t, `: | $L sh -c 'while printf "%s next?" "$(stty size </dev/tty)"; do read x </dev/tty; done'`)
		x.expect("24 80 next?")
		x.resize(33, 101)
		for shown := ""; !strings.Contains(shown, "33 101"); shown = x.expect("next?") {
			x.send("\n")
		}
		x.send("\x03")
		x.ends("130")
	})
	t.Run("interrupt", func(t *testing.T) {
		x := open(t, `yes | $L sh -c 'echo runs >/dev/tty; exec cat' >/dev/null`)
		x.expect("runs")
		x.send("\x03")
		x.ends("130")
	})
	t.Run("broken pipe", func(t *testing.T) {
		x := open(t, `{ $L yes; echo lsub=$? >&2; } | head -n1`)
		x.expect("y")
		x.expect("lsub=141")
		x.ends("0")
	})
	t.Run("exit status", func(t *testing.T) {
		open(t, `: | $L sh -c 'exit 7'`).ends("7")
		open(t, `: | $L sh -c 'kill -9 $$'`).ends("137")
	})
}

// Without a terminal of lsub's own there is none in the distro.
func TestNoTerminalBesidePipes(t *testing.T) {
	h := debian(t)
	ctx, cancel := context.WithTimeout(context.Background(), slow)
	defer cancel()
	cmd := exec.CommandContext(ctx, "setsid", "-w", h.bin, "-d", "debian", "sh", "-c", "read x </dev/tty; echo $?")
	cmd.Env, cmd.Dir = h.env, "/"
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No such device") {
		t.Errorf("%v: %s", err, out)
	}
}
