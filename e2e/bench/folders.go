package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// foldersDistro is the distro from which host folders are measured.
const foldersDistro = "folders"

// mount is a directory of the distro, and what is behind it.
type mount struct {
	name  string
	guest string // the directory in the distro
	host  string // the directory on the host, "" for the distro's own disk
}

const (
	ownDisk    = "the distro's own disk"
	virtiofsUs = "lsub, virtio-fs"
	streamUs   = "lsub, stream"
	virtiofsd  = "virtiofsd (Debian trixie)"
	ninePeer   = "9p (QEMU)"
	sshfsPeer  = "sshfs (passive, over lsub exec)"
)

// folders measures host folders. Every workload runs in the same VM, on the same data, in
// each directory by turns.
func (b *bench) folders() (err error) {
	p, err := b.newFolderPeers()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	mounts, err := p.mounts()
	if err != nil {
		return err
	}
	f := &folderRun{b: b, h: p.h, mounts: mounts, units: map[string]string{}, found: map[string]map[string]samples{}}
	defer f.report() // what was measured, also if a later part fails
	for _, step := range []func() error{f.bulk, f.tree, f.packages, f.build, f.memory} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// folderRun keeps what was measured.
type folderRun struct {
	b      *bench
	h      *home
	mounts []mount
	names  []string // of figures, in their order
	units  map[string]string
	found  map[string]map[string]samples // by figure and mount
}

func (f *folderRun) add(figure, unit, mount string, v float64) {
	if f.found[figure] == nil {
		f.found[figure] = map[string]samples{}
		f.names = append(f.names, figure)
		f.units[figure] = unit
	}
	f.found[figure][mount] = append(f.found[figure][mount], v)
}

// run runs a script in the distro, in a directory of a mount, and returns how long the part
// behind "begin" took, by the guest's clock, and what the script has printed on its stdout.
func (f *folderRun) run(m mount, script string) (time.Duration, string, error) {
	const frame = `cd %s
begin() { start=$EPOCHREALTIME; }
begin
exec 3>&1
{ %s
} >/tmp/out
end=$EPOCHREALTIME
echo $start $end
cat /tmp/out`
	out, err := f.h.output("exec", "-u", "root", "--cd", "/", foldersDistro, "--", "bash", "-ec", fmt.Sprintf(frame, m.guest, script))
	if err != nil {
		return 0, "", fmt.Errorf("%s: %w", m.name, err)
	}
	times, rest, _ := strings.Cut(out, "\n")
	var start, end float64
	if _, err := fmt.Sscan(times, &start, &end); err != nil {
		return 0, "", fmt.Errorf("%s: the script prints %q: %w", m.name, out, err)
	}
	return time.Duration((end - start) * float64(time.Second)), rest, nil
}

// each runs a script in each mount by turns, and reports its time in ms.
func (f *folderRun) each(figure, script string) error {
	for _, m := range f.mounts {
		took, _, err := f.run(m, script)
		if err != nil {
			return fmt.Errorf("%s: %w", figure, err)
		}
		f.add(figure, "ms", m.name, float64(took)/1e6)
	}
	return nil
}

const dropCaches = "sync; echo 3 >/proc/sys/vm/drop_caches; "

// bulk measures one large file.
func (f *folderRun) bulk() error {
	mib, ops := 1024, 4096
	if f.b.quick {
		mib, ops = 64, 512
	}
	for range f.b.times(3, 1) {
		for _, m := range f.mounts {
			for _, w := range []struct{ figure, script string }{
				{"sequential write of %d MiB", fmt.Sprintf("rm -f big; sync; begin; dd if=/dev/zero of=big bs=1M count=%d conv=fsync status=none", mib)},
				{"sequential read of %d MiB, the guest's cache dropped", dropCaches + "begin; dd if=big of=/dev/null bs=1M status=none"},
			} {
				took, _, err := f.run(m, w.script)
				if err != nil {
					return err
				}
				f.add(fmt.Sprintf(w.figure, mib), "MB/s", m.name, float64(mib<<20)/1e6/took.Seconds())
			}
			for _, rw := range []string{"read", "write"} {
				script := fmt.Sprintf(dropCaches+"fio --name=f --filename=big --rw=rand%s --bs=4k --io_size=%dk --size=%dM --fallocate=none --end_fsync=1 --output-format=json", rw, 4*ops, mib)
				_, out, err := f.run(m, script)
				if err != nil {
					return err
				}
				iops, err := parseFIO(out, rw)
				if err != nil {
					return err
				}
				f.add(fmt.Sprintf("random %s, 4 KiB, %d times", rw, ops), "1/s", m.name, iops)
			}
			if _, _, err := f.run(m, "rm big"); err != nil {
				return err
			}
		}
	}
	return nil
}

// parseFIO returns the operations a second of fio's JSON.
func parseFIO(out, rw string) (float64, error) {
	var r struct {
		Jobs []map[string]json.RawMessage `json:"jobs"`
	}
	at := strings.IndexByte(out, '{') // notes may come first
	if at < 0 {
		return 0, fmt.Errorf("fio prints %q", out)
	}
	if err := json.Unmarshal([]byte(out[at:]), &r); err != nil || len(r.Jobs) == 0 {
		return 0, fmt.Errorf("fio prints %q: %w", out, err)
	}
	var w struct {
		IOPS float64 `json:"iops"`
	}
	err := json.Unmarshal(r.Jobs[0][rw], &w)
	return w.IOPS, err
}

// tree measures a directory tree as a repository has it.
func (f *folderRun) tree() error {
	files := 20000
	if f.b.quick {
		files = 1000
	}
	archive, err := f.b.repository(files)
	if err != nil {
		return err
	}
	in, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := f.h.pipe(in, "exec", "-u", "root", foldersDistro, "--", "sh", "-c", "cat >/root/tree.tar; git config --global --add safe.directory '*'"); err != nil {
		return err
	}
	of := fmt.Sprintf(" of %d files", files)
	for range f.b.times(1, 1) {
		for _, w := range []struct {
			figure, script string
			times          int
		}{
			{"tar x" + of, dropCaches + "rm -rf tree; mkdir tree; begin; tar xf /root/tree.tar -C tree; sync", 1},
			{"find" + of + ", the guest's cache dropped", dropCaches + "begin; find tree -type f", 1},
			{"find" + of + ", again", "find tree >/dev/null; begin; find tree -type f", f.b.times(5, 1)},
			{"git status" + of + ", the guest's cache dropped", "git -C tree status >/dev/null; " + dropCaches + "begin; git -C tree status", 1},
			{"git status" + of + ", again", "git -C tree status >/dev/null; begin; git -C tree status", f.b.times(5, 1)},
			{"rm -rf" + of, "rm -rf tree", 1},
		} {
			for range w.times {
				if err := f.each(w.figure, w.script); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// repository makes a Git repository with a number of files, and returns its archive.
func (b *bench) repository(files int) (string, error) {
	dir := filepath.Join(b.dir, "repository")
	for i := range files {
		sub := filepath.Join(dir, fmt.Sprintf("d%d/e%d", i/1000, i/20%50))
		if i%20 == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return "", err
			}
		}
		text := strings.Repeat(fmt.Sprintf("line %d of a file\n", i), 20+i*7919%300)
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%d.txt", i)), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	archive := filepath.Join(b.dir, "tree.tar")
	script := "git init -q && git add -A && git -c user.name=b -c user.email=b@localhost -c gc.auto=0 commit -qm all && git gc -q && tar cf " + archive + " ."
	cmd := exec.CommandContext(b.ctx, "sh", "-c", script)
	cmd.Dir = dir
	if _, err := b.timed(cmd); err != nil {
		return "", err
	}
	return archive, os.RemoveAll(dir)
}

// installPackages does what npm and its like do: it unpacks each package beside its place,
// renames it there and links its program.
const installPackages = `
my ($packages) = @ARGV;
mkdir "node_modules" or die; mkdir "node_modules/.bin" or die;
for my $p (1 .. $packages) {
	my $tmp = "node_modules/.tmp-$p";
	mkdir $tmp or die; mkdir "$tmp/lib" or die;
	for my $f ("package.json", "README.md", "cli.js", map { "lib/m$_.js" } 1 .. 7) {
		open my $h, ">", "$tmp/$f" or die; print $h "text of $f\n" x (50 + $p % 100); close $h or die;
		my @s = stat "$tmp/$f" or die;
	}
	chmod 0755, "$tmp/cli.js" or die;
	rename $tmp, "node_modules/p$p" or die;
	symlink "../p$p/cli.js", "node_modules/.bin/p$p" or die;
}`

func (f *folderRun) packages() error {
	packages := 500
	if f.b.quick {
		packages = 30
	}
	name := fmt.Sprintf("install of %d packages of 10 files, as npm does it", packages)
	script := fmt.Sprintf("rm -rf node_modules; sync; begin; perl -e '%s' %d", installPackages, packages)
	if err := f.each(name, script); err != nil {
		return err
	}
	for _, m := range f.mounts {
		if _, _, err := f.run(m, "rm -rf node_modules"); err != nil {
			return err
		}
	}
	return nil
}

// build measures "go build" of a module in the directory. The toolchain and its cache are on
// the distro's disk.
func (f *folderRun) build() error {
	if f.b.quick {
		return nil // the toolchain is large
	}
	goroot, err := exec.CommandContext(f.b.ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return err
	}
	pack := exec.CommandContext(f.b.ctx, "tar", "c", "-C", strings.TrimSpace(string(goroot)), "--exclude=src/cmd", "--exclude=test", "bin", "pkg", "src", "VERSION", "go.env")
	out, err := pack.StdoutPipe()
	if err != nil {
		return err
	}
	if err := pack.Start(); err != nil {
		return err
	}
	_, err = f.h.pipe(out, "exec", "-u", "root", foldersDistro, "--", "sh", "-c", "mkdir -p /root/go && tar x -C /root/go")
	if err = errors.Join(err, pack.Wait()); err != nil {
		return err
	}
	const module = `rm -rf module; mkdir module; cd module; echo 'module example.com/m' >go.mod
{ echo 'package main'; echo 'import ('; for i in $(seq 20); do echo "\"example.com/m/p$i\""; done; echo '); func main() { println('
for i in $(seq 20); do mkdir p$i; echo "package p$i; import \"strings\"; const Run = \"$EPOCHREALTIME\"; func F() string { return strings.ToUpper(Run) }" >p$i/p.go
for j in $(seq 10); do echo "package p$i; func F$j(n int) int { return n + $j }" >p$i/f$j.go; done; echo "p$i.F(),"; done; echo ') }'; } >main.go
export PATH=/root/go/bin:$PATH GOCACHE=/root/.cache/go GOFLAGS=-mod=mod GOTOOLCHAIN=local HOME=/root
`
	own := f.mounts[0]
	if _, _, err := f.run(own, module+"go build -o /tmp/m ."); err != nil { // fills the cache with the standard library
		return err
	}
	for range f.b.times(2, 1) {
		if err := f.each("go build of a module of 20 packages, 221 files", module+"begin; go build -o m . && ./m 2>/dev/null"); err != nil {
			return err
		}
	}
	return nil
}

// memory measures what a server needs to know many files.
func (f *folderRun) memory() error {
	files := 100_000
	if f.b.quick {
		files = 10_000
	}
	for _, m := range f.mounts {
		pid := 0
		switch m.name {
		case virtiofsUs, streamUs:
			pid = f.shareProcess(m.host)
		case virtiofsd:
			pid = f.virtiofsdProcess()
		}
		if pid == 0 {
			continue
		}
		many := filepath.Join(m.host, "many")
		for i := range files {
			sub := filepath.Join(many, strconv.Itoa(i/1000))
			if i%1000 == 0 {
				if err := os.MkdirAll(sub, 0o755); err != nil {
					return err
				}
			}
			if err := os.WriteFile(filepath.Join(sub, strconv.Itoa(i)), nil, 0o644); err != nil {
				return err
			}
		}
		before := memory(pid, "VmRSS")
		if _, _, err := f.run(m, "find many -type f -size +1 >/dev/null"); err != nil {
			return err
		}
		f.b.report.figure(fmt.Sprintf("%s: the server's memory for %d files that the guest knows", m.name, files), "MiB", samples{memory(pid, "VmRSS") - before})
		used, err := processorTime(pid)
		if err != nil {
			return err
		}
		const idle = 10 * time.Second
		if err := f.b.pause(idle); err != nil {
			return err
		}
		after, err := processorTime(pid)
		if err != nil {
			return err
		}
		f.b.report.figure(m.name+": processor time of the server in 10 s without an access", "ms", samples{float64(after-used) / 1e6})
	}
	return nil
}

// shareProcess returns lsub's process that serves a directory, or 0.
func (f *folderRun) shareProcess(dir string) int {
	st, err := f.h.status()
	if err != nil {
		return 0
	}
	list, _ := children(st.PID)
	for _, pid := range list {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range fds {
			if to, _ := os.Readlink(fd); to == dir && strings.Contains(content(fmt.Sprintf("/proc/%d/cmdline", pid)), "serve-share") {
				return pid
			}
		}
	}
	return 0
}

// virtiofsdProcess returns the process of virtiofsd that has the most memory: with a sandbox,
// it is a child of the one that was started.
func (f *folderRun) virtiofsdProcess() int {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	best, most := 0, -1.0
	for _, file := range files {
		if strings.Contains(content(file), filepath.Join(f.b.dir, "virtiofsd.sock")) && !strings.Contains(content(file), "qemu") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if m := memory(pid, "VmRSS"); m > most {
				best, most = pid, m
			}
		}
	}
	return best
}

// report reports each figure: ours beside the best of the peers, and each of the others.
func (f *folderRun) report() {
	for _, name := range f.names {
		of, unit := f.found[name], f.units[name]
		best := ""
		for _, peer := range []string{virtiofsd, ninePeer, sshfsPeer} {
			if len(of[peer]) == 0 {
				continue
			}
			m := of[peer].quantile(0.5)
			if best == "" || larger(unit) && m > of[best].quantile(0.5) || !larger(unit) && m < of[best].quantile(0.5) {
				best = peer
			}
		}
		for _, ours := range []string{virtiofsUs, streamUs} {
			row := f.b.report.figure("folder: "+name+": "+ours, unit, of[ours])
			if best != "" {
				row.beside(best, of[best])
			}
		}
		for _, other := range []string{ownDisk, virtiofsd, ninePeer, sshfsPeer} {
			if other != best && len(of[other]) > 0 {
				f.b.report.figure("… "+other, unit, of[other])
			}
		}
	}
}
