// Command bench measures what lsub's users wait for, and prints it as a table
// beside a peer's figures from the same run; out/bench.json has the same and
// more. It reports and does not judge: it exits with 0 unless something is
// broken, whatever the figures are. Run it on a machine that does nothing else:
//
//	./task bench
//	./task bench -- -quick -run 'warm|idle'
//
// It measures a copy of bin/lsub from the outside, in a home of its own that is
// gone at the end; only the cache of images is the user's. The peers come from
// Debian: ssh and sshd into the same distro, and vhost-device-vsock under the
// same QEMU and guest. Ours and the peer's runs take turns, so that what else
// happens on the machine hits both.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// group is figures that are measured together.
type group struct {
	name, about string
	measure     func(*bench) error
}

// groups are in the order in which they run.
var groups = []group{
	{"cold", "the VM is off: to the first command's end", (*bench).cold},
	{"systemd", "a distro with systemd is stopped: to the first command's end, and until it is up", (*bench).systemd},
	{"warm", "a command in a running distro, beside ssh", (*bench).warm},
	{"bulk", "a command's stdout and stdin, beside ssh", (*bench).bulk},
	{"idle", "processor time and memory while nothing happens", (*bench).idle},
	{"memory", "memory of the host and of the guest for 1, 5 and 10 distros", (*bench).memory},
	{"install", "the first and the second install of an image", (*bench).install},
	{"import", "a root file system into the guest, and out of it", (*bench).importing},
	{"copy", "clones and snapshots, of small and large distros", (*bench).copying},
	{"cp", "copies between the host and a distro, beside tar through a pipe", (*bench).crossing},
	{"dns", "a name in a distro, beside the host", (*bench).dns},
	{"forward", "ports of a distro on the host's localhost, beside QEMU's hostfwd, passt and ssh -L", (*bench).forward},
	{"folders", "folders of the host, beside the distro's own disk, virtiofsd, QEMU's 9p and sshfs", (*bench).folders},
	{"vsock", "the vsock device alone, beside vhost-device-vsock", (*bench).vsock},
}

type options struct {
	lsub, out string
	vsockPeer string // a directory, or "" to fetch it
	run       *regexp.Regexp
	scale     float64
	quick     bool
	kvm       bool
}

func main() {
	var o options
	var run string
	flag.StringVar(&o.lsub, "lsub", "bin/lsub", "the `program` to measure")
	flag.StringVar(&o.out, "out", "out/bench.json", "write the figures to `FILE`, too")
	flag.StringVar(&o.vsockPeer, "vsock-peer", "", "take vhost-device-vsock from the `DIR` that 'mmdebstrap --variant=extract --include=vhost-device-vsock sid DIR' has made, instead of fetching it")
	flag.StringVar(&run, "run", "", "measure only the groups whose name matches `REGEX`")
	flag.Float64Var(&o.scale, "n", 1, "measure `N` times as often")
	flag.BoolVar(&o.quick, "quick", false, "measure a few times only, to see that it works")
	flag.BoolVar(&o.kvm, "kvm", false, "on a machine with KVM: keep the medians as the column for KVM, in "+kvmFile)
	flag.Usage = usage
	flag.Parse()
	var err error
	if o.run, err = regexp.Compile(run); err != nil || flag.NArg() > 0 || o.scale <= 0 {
		usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func usage() {
	w := flag.CommandLine.Output()
	fmt.Fprintln(w, "usage: go run ./e2e/bench [flags], in the root of the repository")
	flag.PrintDefaults()
	fmt.Fprintln(w, "groups of figures:")
	for _, g := range groups {
		fmt.Fprintf(w, "  %-10s%s\n", g.name, g.about)
	}
}

// bench is one run of the benchmark.
type bench struct {
	options
	ctx    context.Context // done when the user has had enough
	dir    string          // everything that is gone at the end
	homes  []*home         // with VMs that may run
	main   *home           // of most figures
	report report

	spent       time.Duration // processor time of all commands so far
	tinyArchive string        // made on demand
	guest       *sshGuest
}

// measure measures what o asks for, and reports it. The error is of what could
// not be measured; the rest is reported nevertheless.
func measure(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "lsub-bench-")
	if err != nil {
		return err
	}
	b := &bench{options: o, ctx: ctx, dir: dir}
	defer func() { err = errors.Join(err, b.end()) }()
	// A copy, because a build may replace the program meanwhile.
	if err := copyProgram(filepath.Join(dir, "lsub"), o.lsub); err != nil {
		return fmt.Errorf("%w; './task build' makes it", err)
	}
	if b.main, err = b.newHome("main"); err != nil {
		return err
	}
	b.report.begin(b)
	var errs []error
	for _, g := range groups {
		if ctx.Err() != nil || !o.run.MatchString(g.name) {
			continue
		}
		b.say("%s: %s", g.name, g.about)
		if err := g.measure(b); err != nil && ctx.Err() == nil {
			errs = append(errs, fmt.Errorf("%s: %w", g.name, err))
		}
	}
	if ctx.Err() != nil { // what was measured until then counts
		errs = append(errs, errors.New("interrupted: the groups after this moment were not measured"))
	}
	b.report.end(errs)
	b.report.print(os.Stdout)
	errs = append(errs, b.report.write(o.out))
	if o.kvm {
		errs = append(errs, b.report.keepKVM())
	}
	return errors.Join(errs...)
}

// end ends every VM and removes what was made.
func (b *bench) end() error {
	if b.guest != nil {
		b.guest.close()
	}
	var errs []error
	for _, h := range b.homes {
		errs = append(errs, h.shutdown("--force"))
	}
	return errors.Join(append(errs, os.RemoveAll(b.dir))...)
}

// times is how often something is measured: full times, or quick ones with
// -quick, scaled by -n.
func (b *bench) times(full, quick int) int {
	if b.quick {
		full = quick
	}
	return max(1, int(float64(full)*b.scale+0.5))
}

// pause waits, unless the user has had enough.
func (b *bench) pause(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

func copyProgram(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
