package kvm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/hint"
)

// findQEMU returns the path of QEMU: the one of the options, or the program for the guests'
// processor on PATH. The options are valid.
func findQEMU(o *Options) (string, error) {
	names := qemuNames[o.arch()]
	want := cmp.Or(o.QEMU, names.program)
	found, err := exec.LookPath(want)
	if err != nil {
		if e := new(exec.Error); errors.Is(err, exec.ErrNotFound) {
			err = fmt.Errorf("no %s in $PATH", want)
		} else if errors.As(err, &e) {
			err = e.Err // it contains the program's name
		}
		return "", hint.New(fmt.Errorf("QEMU is missing: %w", err), "install it with 'sudo apt install "+names.pkg+"', or your system's package of the same kind")
	}
	return found, nil
}

// probe identifies a version of a program file.
type probe struct {
	path  string
	mtime time.Time
	size  int64
}

// qemuVersion asks QEMU for its version. It caches the answer until the file changes.
func (d *Driver) qemuVersion(ctx context.Context, program string) (version, error) {
	fi, err := os.Stat(program)
	if err != nil {
		return version{}, err
	}
	p := probe{program, fi.ModTime(), fi.Size()}
	d.mu.Lock()
	defer d.mu.Unlock()
	if v, ok := d.versions[p]; ok {
		return v, nil
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "-version").CombinedOutput()
	if err != nil {
		return version{}, fmt.Errorf("%s -version: %w: %.200s", program, err, out)
	}
	v, err := parseVersion(string(out))
	if err != nil {
		return version{}, fmt.Errorf("%s -version: %w", program, err)
	}
	d.versions[p] = v
	return v, nil
}

// checkVersion returns an error if QEMU is too old.
func (d *Driver) checkVersion(ctx context.Context, program string) error {
	v, err := d.qemuVersion(ctx, program)
	if err != nil {
		return err
	}
	return v.check(program, qemuNames[d.opts.arch()].pkg)
}

// readAccelFacts reads the facts from the machine, for a guest of an architecture.
func readAccelFacts(guest string) accelFacts {
	f := accelFacts{arch: runtime.GOARCH, guest: guest}
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if f.kvmErr = err; err == nil {
		kvm.Close()
	}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		f.cpuinfo = string(info)
	} else if f.kvmErr == nil {
		f.kvmErr = err
	}
	return f
}

// readNestedFacts reads the facts from the machine, for a guest of an architecture.
func readNestedFacts(guest string, accel Accel) nestedFacts {
	f := nestedFacts{arch: guest, accel: accel}
	for _, module := range []string{"kvm_amd", "kvm_intel"} {
		if text, err := os.ReadFile("/sys/module/" + module + "/parameters/nested"); err == nil {
			f.module, f.param = module, string(text)
		}
	}
	return f
}

// readMemoryFacts reads the facts from the machine and this process's limits.
func readMemoryFacts() (memoryFacts, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return memoryFacts{}, err
	}
	f, err := parseMeminfo(string(text))
	if err != nil {
		return memoryFacts{}, err
	}
	var as unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_AS, &as); err == nil && as.Cur <= 1<<62 {
		f.address = int64(as.Cur)
	}
	f.limit = cgroupLimit("/sys/fs/cgroup", "/proc/self/cgroup")
	return f, nil
}

// cgroupLimit returns the lowest memory.max of this process's control group and its
// ancestors, 0 for none. Control groups that cannot be read count as no limit.
func cgroupLimit(root, self string) int64 {
	text, err := os.ReadFile(self)
	if err != nil {
		return 0
	}
	var least int64
	for line := range strings.Lines(string(text)) {
		group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		for g := path.Clean("/" + group); ; g = path.Dir(g) {
			b, err := os.ReadFile(root + g + "/memory.max")
			if err == nil {
				n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
				if err == nil && (least == 0 || n < least) {
					least = n
				}
			}
			if g == "/" {
				break
			}
		}
	}
	return least
}

// checkFile returns why a file cannot be opened for reading or for writing, or nil.
func checkFile(what, name string, readOnly bool) error {
	mode := os.O_RDWR
	if readOnly {
		mode = os.O_RDONLY
	}
	// O_NONBLOCK, so that a FIFO does not block us.
	f, err := os.OpenFile(name, mode|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if !fi.Mode().IsRegular() && fi.Mode()&fs.ModeDevice == 0 {
		return fmt.Errorf("%s: %w", what, &fs.PathError{Op: "open", Path: name, Err: errors.New("it is neither a file nor a block device")})
	}
	return nil
}
