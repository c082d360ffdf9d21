package kvm

import (
	"flag"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lsub/lsub/hypervisor"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestArgv(t *testing.T) {
	full := hypervisor.Config{
		Name: "default", Dir: "/run/lsub", Kernel: "/cache/guest/kernel", Initrd: "/cache/guest/initrd",
		Cmdline: "quiet lsub.profile=default", CPUs: 4, Memory: 2 << 30,
		Console: "/state/console.log",
		Disks: []hypervisor.Disk{
			{Path: "/cache/guest/system.erofs", ReadOnly: true, Serial: "system"},
			{Path: "/state/data.img", Serial: "data"},
		},
		NIC: &hypervisor.NIC{MAC: net.HardwareAddr{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee}, MTU: 65520},
	}
	bare := hypervisor.Config{Name: "bare", Kernel: "/k", CPUs: 1, Memory: 128<<20 + 4711, Console: "/c"}
	commas := bare
	commas.Name = "a,b"
	commas.Console = "/tmp/it's, a console"
	commas.Disks = []hypervisor.Disk{{Path: "/tmp/x,read-only=on"}}
	nested := bare
	nested.Nested = true
	none := facts{qmpFD: 3, nicFD: noFD, vhostFD: noFD, userFD: noFD}
	with := func(f facts, change func(*facts)) facts { change(&f); return f }

	for _, c := range []struct {
		name  string
		cfg   hypervisor.Config
		facts facts
	}{
		{"amd64-tcg-user", full, with(none, func(f *facts) { f.arch, f.accel, f.nicFD, f.userFD = "amd64", AccelTCG, 4, 5 })},
		{"amd64-tcg-datagrams-hvc", full, with(none, func(f *facts) { // as on macOS
			f.arch, f.accel, f.nicFD, f.nicDatagrams, f.virtioConsole, f.userFD = "amd64", AccelTCG, 4, true, true, 5
		})},
		{"amd64-tcg-vhdx", full, with(none, func(f *facts) { // as for Windows' documents
			f.arch, f.accel, f.userFD, f.diskFormat = "amd64", AccelTCG, 5, "vhdx"
		})},
		{"amd64-kvm-kernel", full, with(none, func(f *facts) {
			f.arch, f.accel, f.nicFD, f.vhostFD, f.cid = "amd64", AccelKVM, 4, 5, 123456
		})},
		{"arm64-kvm-user", full, with(none, func(f *facts) { f.arch, f.accel, f.nicFD, f.userFD = "arm64", AccelKVM, 4, 5 })},
		{"amd64-tcg-card", full, with(none, func(f *facts) {
			f.arch, f.accel, f.nicPath, f.nicNoMSI, f.userFD = "amd64", AccelTCG, "/run/lsub/nic-1.sock", true, 4
		})},
		{"amd64-kvm-nested", nested, with(none, func(f *facts) { f.arch, f.accel, f.userFD = "amd64", AccelKVM, 4 })},
		{"amd64-tcg-nested", nested, with(none, func(f *facts) { f.arch, f.accel, f.userFD = "amd64", AccelTCG, 4 })},
		{"arm64-tcg-nested", nested, with(none, func(f *facts) { f.arch, f.accel, f.userFD = "arm64", AccelTCG, 4 })},
		{"arm64-tcg", bare, with(none, func(f *facts) { f.arch, f.accel, f.userFD = "arm64", AccelTCG, 4 })},
		{"amd64-kvm-card", full, with(none, func(f *facts) {
			f.arch, f.accel, f.nicPath, f.userFD = "amd64", AccelKVM, "/run/a,b/nic-1.sock", 4
		})},
		{"bare", bare, with(none, func(f *facts) { f.arch, f.accel, f.userFD = "amd64", AccelTCG, 4 })},
		{"commas", commas, with(none, func(f *facts) { f.arch, f.accel, f.userFD = "amd64", AccelTCG, 4 })},
	} {
		t.Run(c.name, func(t *testing.T) {
			// One option a line is easiest to read.
			got := strings.ReplaceAll(quoteArgv(argv(&c.cfg, c.facts)), " -", " \\\n-") + "\n"
			golden(t, filepath.Join("testdata", "argv", c.name+".golden"), got)
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; go test -update makes it", err)
	}
	// A checkout on Windows may have changed the line ends.
	text := strings.ReplaceAll(string(want), "\r\n", "\n")
	if diff := cmp.Diff(text, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func TestQuoteArgv(t *testing.T) {
	got := quoteArgv([]string{"qemu", "-append", "a b", "it's", "", "$x", "k=v,w"})
	if want := `qemu -append 'a b' 'it'\''s' '' '$x' k=v,w`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
