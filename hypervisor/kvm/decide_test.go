package kvm

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/lsub/lsub/hint"
)

func TestParseVersion(t *testing.T) {
	for _, c := range []struct {
		out  string
		want version
		old  bool
	}{
		{"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright (c) 2003-2022 …\n", version{7, 2, 22}, false},
		{"QEMU emulator version 10.0.2\n", version{10, 0, 2}, false},
		{"warning: something\nQEMU emulator version 9.1 (x)\n", version{9, 1, 0}, false},
		{"QEMU emulator version 6.2.0 (Debian 1:6.2+dfsg-2ubuntu6)\n", version{6, 2, 0}, true},
		{"QEMU emulator version 7.1.90\n", version{7, 1, 90}, true},
	} {
		got, err := parseVersion(c.out)
		if err != nil || got != c.want {
			t.Errorf("parseVersion(%q) = %v, %v; want %v", c.out, got, err, c.want)
		}
		err = got.check("qemu", "qemu-system-x86")
		if (err != nil) != c.old {
			t.Errorf("check of %v: %v", got, err)
		}
		if c.old && (!strings.Contains(err.Error(), "7.2 or newer") || !strings.Contains(hint.Of(err), "qemu-system-x86")) {
			t.Errorf("check of %v: %v (hint: %s)", got, err, hint.Of(err))
		}
	}
	for _, out := range []string{"", "bash: qemu: command not found", "QEMU emulator version x.y"} {
		if v, err := parseVersion(out); err == nil {
			t.Errorf("parseVersion(%q) = %v", out, v)
		}
	}
}

func TestDescribe(t *testing.T) {
	for accel, want := range map[Accel]string{AccelKVM: "QEMU 7.2.22 with KVM", AccelTCG: "QEMU 7.2.22, software emulation"} {
		if got := describe(version{7, 2, 22}, accel); got != want {
			t.Errorf("%s: %q, want %q", accel, got, want)
		}
	}
}

func TestUnknownAccel(t *testing.T) {
	err := (&Options{Accel: "foo"}).validate()
	if err == nil || err.Error() != `unknown accelerator "foo"` || hint.Of(err) != "LSUB_ACCEL is auto, kvm or tcg" {
		t.Errorf("%v (hint: %s)", err, hint.Of(err))
	}
}

func TestChooseAccel(t *testing.T) {
	const can, cannot = "processor\t: 0\nflags\t\t: fpu vmx sse\n", "processor\t: 0\nflags\t\t: fpu vmxnet sse\nbugs\t: svm\n"
	missing := &fs.PathError{Op: "open", Path: "/dev/kvm", Err: fs.ErrNotExist}
	denied := &fs.PathError{Op: "open", Path: "/dev/kvm", Err: fs.ErrPermission}
	for _, c := range []struct {
		name  string
		want  Accel
		facts accelFacts
		got   Accel // "" for an error
		slow  bool  // a reason is given
		hint  string
	}{
		{"auto can", AccelAuto, accelFacts{"amd64", "amd64", nil, can}, AccelKVM, false, ""},
		{"empty is auto", "", accelFacts{"amd64", "amd64", nil, can}, AccelKVM, false, ""},
		{"auto, amd", AccelAuto, accelFacts{"amd64", "amd64", nil, strings.Replace(can, "vmx", "svm", 1)}, AccelKVM, false, ""},
		{"auto, a device that deceives", AccelAuto, accelFacts{"amd64", "amd64", nil, cannot}, AccelTCG, true, ""},
		{"auto, no device", AccelAuto, accelFacts{"amd64", "amd64", missing, can}, AccelTCG, true, ""},
		{"auto, arm64", AccelAuto, accelFacts{"arm64", "arm64", nil, ""}, AccelKVM, false, ""},
		{"auto, a guest for another processor", AccelAuto, accelFacts{"amd64", "arm64", nil, can}, AccelTCG, true, ""},
		{"kvm, a guest for another processor", AccelKVM, accelFacts{"amd64", "arm64", nil, can}, "", false, ""},
		{"tcg", AccelTCG, accelFacts{"amd64", "amd64", nil, can}, AccelTCG, false, ""},
		{"kvm", AccelKVM, accelFacts{"amd64", "amd64", nil, can}, AccelKVM, false, ""},
		{"kvm, no device", AccelKVM, accelFacts{"amd64", "amd64", missing, can}, "", false, "firmware"},
		{"kvm, no permission", AccelKVM, accelFacts{"amd64", "amd64", denied, can}, "", false, "usermod -aG kvm"},
		{"kvm, a device that deceives", AccelKVM, accelFacts{"amd64", "amd64", nil, cannot}, "", false, "nested"},
	} {
		got, reason, err := chooseAccel(c.want, c.facts)
		if got != c.got || (reason != nil) != c.slow || (err != nil) != (c.got == "") {
			t.Errorf("%s: %q, %v, %v", c.name, got, reason, err)
		}
		if !strings.Contains(hint.Of(err), c.hint) {
			t.Errorf("%s: the hint is %q, want one with %q", c.name, hint.Of(err), c.hint)
		}
	}
}

func TestCheckNested(t *testing.T) {
	for _, c := range []struct {
		facts     nestedFacts
		err, hint string
	}{
		{nestedFacts{"amd64", AccelTCG, "", ""}, "", ""},
		{nestedFacts{"arm64", AccelTCG, "", ""}, "", ""},
		{nestedFacts{"arm64", AccelKVM, "", ""}, "does not use", ""},
		{nestedFacts{"amd64", AccelKVM, "kvm_amd", "1\n"}, "", ""},
		{nestedFacts{"amd64", AccelKVM, "kvm_intel", "Y\n"}, "", ""},
		{nestedFacts{"amd64", AccelKVM, "kvm_intel", "N\n"}, "nested=0", "options kvm_intel nested=1"},
		{nestedFacts{"amd64", AccelKVM, "", ""}, "neither", ""},
	} {
		err := checkNested(c.facts)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) || !strings.Contains(hint.Of(err), c.hint) {
			t.Errorf("%+v: %v (hint: %s)", c.facts, err, hint.Of(err))
		}
	}
}

func TestParseMeminfo(t *testing.T) {
	f, err := parseMeminfo("MemTotal:       24684236 kB\nMemFree: 1 kB\nMemAvailable:   23000000 kB\nSwapTotal: 1024 kB\nSwapFree: 512 kB\nHugePages_Total:       0\n")
	if err != nil || f.total != (24684236+1024)<<10 || f.available != (23000000+512)<<10 {
		t.Errorf("%+v, %v", f, err)
	}
	if f, err := parseMeminfo("nothing\n"); err == nil {
		t.Errorf("no MemTotal: %+v", f)
	}
}

func TestCheckMemory(t *testing.T) {
	const gib = 1 << 30
	plenty := memoryFacts{total: 16 * gib, available: 12 * gib}
	with := func(change func(*memoryFacts)) memoryFacts { f := plenty; change(&f); return f }
	for _, c := range []struct {
		name  string
		size  int64
		facts memoryFacts
		warn  bool
		err   string
	}{
		{"fits", 8 * gib, plenty, false, ""},
		{"more than is free", 14 * gib, plenty, true, ""},
		{"more than there is", 17 * gib, plenty, false, "this machine has 16384 MiB"},
		{"nothing is free", 1 * gib, with(func(f *memoryFacts) { f.available = 100 << 20 }), false, "too little for a VM to boot"},
		{"control group", 2 * gib, with(func(f *memoryFacts) { f.limit = 1 * gib }), false, "control group"},
		{"address space", 2 * gib, with(func(f *memoryFacts) { f.address = 2 * gib }), false, "ulimit -v"},
	} {
		warn, err := checkMemory(c.size, c.facts)
		if (warn != "") != c.warn {
			t.Errorf("%s: warning %q", c.name, warn)
		}
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.err)
		}
		if err != nil && hint.Of(err) == "" {
			t.Errorf("%s: %v carries no hint", c.name, err)
		}
	}
}

func TestExplain(t *testing.T) {
	for _, c := range []struct{ name, stderr, want, hint string }{
		{"silence", "", "", ""},
		{"warnings", "qemu-system-x86_64: warning: TCG doesn't support requested feature\n", "", ""},
		{
			"lock", "qemu-system-x86_64: -blockdev driver=raw,node-name=disk0: Failed to get \"write\" lock\nIs another process using the image [/d.img]?\n",
			`a disk is in use: -blockdev driver=raw,node-name=disk0: Failed to get "write" lock; Is another process using the image [/d.img]?`, "stop it first",
		},
		{
			"memory", "/usr/bin/qemu-system-x86_64: cannot set up guest memory 'ram': Cannot allocate memory\n",
			"not enough memory: cannot set up guest memory 'ram': Cannot allocate memory", "less memory",
		},
		{"kvm", "Could not access KVM kernel module: Permission denied\nqemu-system-x86_64: -accel kvm: failed to initialize kvm: Permission denied\n",
			"Could not access KVM kernel module: Permission denied; -accel kvm: failed to initialize kvm: Permission denied", "usermod"},
		{"kvm is taken", "ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy\nqemu-system-x86_64: -accel kvm: failed to initialize kvm: Device or resource busy\n",
			"another program has the processor's virtualization: ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy; -accel kvm: failed to initialize kvm: Device or resource busy", "VirtualBox"},
		{"long", "1\n2\n3\n4\n5\n6\n7\n", "3; 4; 5; 6; 7", ""},
	} {
		err := explain(c.stderr)
		if got := fmt.Sprint(err); got != c.want && (err != nil || c.want != "") {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
		if !strings.Contains(hint.Of(err), c.hint) {
			t.Errorf("%s: the hint is %q, want one with %q", c.name, hint.Of(err), c.hint)
		}
	}
}

func TestOptions(t *testing.T) {
	good := Options{Accel: AccelTCG, VSock: VSockUser}
	if err := errors.Join(good.validate(), (&Options{}).validate()); err != nil {
		t.Error(err)
	}
	for _, bad := range []Options{{Accel: "hvf"}, {VSock: "tcp"}} {
		if err := bad.validate(); err == nil {
			t.Errorf("%+v is valid", bad)
		}
	}
}
