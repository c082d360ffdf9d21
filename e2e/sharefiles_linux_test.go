package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// long tells whether campaigns have their full length.
func long() bool { return os.Getenv("LSUB_TEST_LONG") == "1" }

// TestShareFiles does on shared folders what programs do all day. With LSUB_TEST_LONG=1 each
// part takes its full time.
func TestShareFiles(t *testing.T) {
	h, distro := withPython(t)
	fstest := program(t, "./fstest")
	if r := h.runWith(bytes.NewReader(fstest), "exec", "-u", "root", distro, "--", "sh", "-ec", "cat >/usr/local/bin/fstest; chmod +x /usr/local/bin/fstest"); r.code != 0 {
		t.Fatal(r)
	}
	for _, carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			dir := shareDir(t)
			h.ok(t, "mount", "add", "--writable", "--carrier", carrier, dir)
			t.Cleanup(func() { h.run("mount", "remove", dir) })
			in := func(name string) string {
				if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
					t.Fatal(err)
				}
				return "/mnt/host" + dir + "/" + name
			}
			t.Run("POSIX", func(t *testing.T) { h.sh(t, distro, "fstest "+in("cases")) })
			t.Run("random operations", func(t *testing.T) {
				how := "-ops 300"
				if long() {
					how = "-fsx 10m"
				}
				h.sh(t, distro, "fstest "+how+" "+in("fsx"))
			})
			t.Run("a database", func(t *testing.T) { h.sh(t, distro, database(in("database"))) })
			t.Run("a repository", func(t *testing.T) { testRepository(t, h, distro, in("repository")) })
			t.Run("a link that changes on the host", func(t *testing.T) { testHostRaces(t, h, dir) })
		})
	}
}

// database has two processes write to a database of SQLite in WAL mode, which takes shared
// memory in a mapped file, and true locks.
func database(dir string) string {
	rows := 20
	if long() {
		rows = 1000
	}
	return fmt.Sprintf(`cd %s
cat >w.py <<'X'
import sqlite3, sys
db = sqlite3.connect("db", timeout=600, isolation_level=None)
for i in range(%d):
    db.execute("begin immediate"); db.execute("insert into t values (?, ?)", (sys.argv[1], i)); db.execute("update n set n = n + 1"); db.execute("commit")
X
python3 -c 'import sqlite3; db = sqlite3.connect("db"); print(db.execute("pragma journal_mode=wal").fetchone()[0]); db.executescript("create table t (who, i); create table n (n); insert into n values (0)")' | grep -x wal
python3 w.py a & a=$!
python3 w.py b & b=$!
wait $a; wait $b
[ "$(python3 -c 'import sqlite3; db = sqlite3.connect("db"); print(db.execute("pragma integrity_check").fetchone()[0], *db.execute("select count(*), count(distinct who), (select n from n) from t").fetchone())')" = "ok %d 2 %[3]d" ]`, dir, rows, 2*rows)
}

// testRepository commits while others read.
func testRepository(t *testing.T, h *host, distro, dir string) {
	commits := 10
	if long() {
		commits = 100
	}
	h.sh(t, distro, fmt.Sprintf(`cd %s
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
git init -q . 2>/dev/null; git config user.name n; git config user.email e@localhost; git commit -q --allow-empty -m 0
(export GIT_OPTIONAL_LOCKS=0; while [ ! -e stop ]; do git log --oneline >/dev/null && git status >/dev/null || { touch failed; exit; }; done) & reader=$!
for i in $(seq %d); do mkdir -p d$i; echo $i >d$i/f; echo $i >same; git add d$i same; git commit -q -m $i; done
touch stop; wait $reader; [ ! -e failed ]
git fsck --strict 2>&1; [ "$(git rev-list --count HEAD)" = %d ]; git gc -q; git fsck`, dir, commits, commits+1))
}

// testHostRaces has a process of the host exchange a directory and a link to a directory
// outside all the time, while the distro's root goes through that name.
func testHostRaces(t *testing.T, h *host, dir string) {
	outside := shareDir(t)
	for name, text := range map[string]string{filepath.Join(outside, "secret"): "outside", filepath.Join(dir, "races", "d", "secret"): "inside"} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a, b := filepath.Join(dir, "races", "d"), filepath.Join(dir, "races", "link")
	if err := os.Symlink(outside, b); err != nil {
		t.Fatal(err)
	}
	d := 3 * time.Second
	if long() {
		d = time.Minute
	}
	ctx, cancel := context.WithCancel(t.Context())
	swapped := make(chan int)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
		}
		swapped <- n
	}()
	// In the distro the link leads to a directory of the distro, if it has one of that name.
	out := h.sh(t, "debian", fmt.Sprintf(`cd /mnt/host%s/races; n=0; sleep %d & while kill -0 $! 2>/dev/null; do n=$((n+1))
for p in d d/../d link; do x=; { read x <$p/secret; } 2>/dev/null || true
case $x in inside|"") ;; *) echo "read $p/secret"; exit 1; esac
{ echo x >$p/made; } 2>/dev/null || true; done; done; echo $n rounds`, dir, int(d.Seconds())))
	cancel()
	t.Log(out, "in the distro,", <-swapped, "on the host")
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
		t.Errorf("outside: %v, %v", left, err)
	}
}

// TestShareTrouble is about what goes wrong on the host.
func TestShareTrouble(t *testing.T) {
	h := debian(t)
	for _, carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			t.Run("full disk", func(t *testing.T) { testFullDisk(t, h, carrier) })
			t.Run("many files under a low limit", func(t *testing.T) { testManyFiles(t, h, carrier) })
			t.Run("paused VM", func(t *testing.T) { testPausedVM(t, h, carrier) })
		})
	}
}

// testFullDisk fills the disk of the host that the folder is on.
func testFullDisk(t *testing.T, h *host, carrier string) {
	dir := shareDir(t)
	if err := unix.Mount("full", dir, "tmpfs", 0, "size=2m,mode=755"); err != nil {
		t.Skip("mounting takes root: ", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	h.ok(t, "mount", "add", "--writable", "--carrier", carrier, dir)
	t.Cleanup(func() { h.run("mount", "remove", dir) })
	h.sh(t, "debian", `cd /mnt/host`+dir+`
echo before >kept
if dd if=/dev/zero of=big bs=64k count=100 conv=fsync 2>/tmp/dd; then exit 1; fi
grep "No space left on device" /tmp/dd
[ "$(cat kept)" = before ]; rm big; echo after >kept; [ "$(cat kept)" = after ]`)
	if b, err := os.ReadFile(filepath.Join(dir, "kept")); err != nil || string(b) != "after\n" {
		t.Errorf("%q, %v", b, err)
	}
}

// testManyFiles has the distro walk many files, and hold 2,000 of them open, whose server may
// open few.
func testManyFiles(t *testing.T, h *host, carrier string) {
	files := 4000
	if long() {
		files = 300_000
	}
	dir := shareDir(t)
	for i := range files {
		sub := filepath.Join(dir, fmt.Sprint("d", i/1000))
		if i%1000 == 0 {
			if err := os.Mkdir(sub, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprint("f", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h.ok(t, "mount", "add", "--carrier", carrier, dir)
	t.Cleanup(func() { h.run("mount", "remove", dir) })
	pid := h.mounted(t, dir).PID
	// As if the host's "ulimit -n" were 1,024.
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: 1024}, nil); err != nil {
		t.Fatal(err)
	}
	out := h.sh(t, "debian", `ulimit -n 4096; cd /mnt/host`+dir+`
[ $(find . -type f -size 0 | wc -l) = `+fmt.Sprint(files)+` ]
perl -e 'for my $i (0..1999) { my $f; open($f,"<","d".int($i/1000)."/f$i") or die "open $i: $!"; push @f,$f }
for my $f (@f) { stat $f or die $! } opendir my $d,"d0" or die $!; my @n=readdir $d; print scalar(@f)," ",scalar(@n)'`)
	if out != "2000 1002" {
		t.Errorf("the distro says %q", out)
	}
	if n := openFiles(t, pid); n > 1024 {
		t.Errorf("%d descriptors", n)
	}
}

// testPausedVM stops QEMU and the server while a distro writes, as a host's sleep does.
func testPausedVM(t *testing.T, h *host, carrier string) {
	dir := shareDir(t)
	h.ok(t, "mount", "add", "--writable", "--carrier", carrier, dir)
	t.Cleanup(func() { h.run("mount", "remove", dir) })
	p := h.serve(t, "debian", "sh", "-ec", `cd /mnt/host`+dir+`; echo ready
for i in $(seq 100); do echo $i >f; [ "$(cat f)" = $i ]; done; echo done`)
	if got := p.line(); got != "ready" {
		t.Fatal(got)
	}
	_, qemu := h.supervisor(t)
	stopped := []int{qemu, h.mounted(t, dir).PID}
	for _, pid := range stopped {
		unix.Kill(pid, unix.SIGSTOP)
		defer unix.Kill(pid, unix.SIGCONT)
		within(t, quick, "the process stands still", func() bool { return standsStill(pid) })
	}
	if err := os.WriteFile(filepath.Join(dir, "meanwhile"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, pid := range stopped {
		unix.Kill(pid, unix.SIGCONT)
	}
	if got := p.line(); got != "done" {
		t.Error(got)
	}
	if got := h.sh(t, "debian", "cat /mnt/host"+dir+"/meanwhile"); got != "text" {
		t.Error(got)
	}
}
