package hvtest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
)

// sparse makes a sparse file for a disk.
func sparse(t *testing.T, name string, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
		t.Fatal(err)
	}
	return path
}

// dataDisk makes an empty disk that the guest may write to.
func (h Harness) dataDisk(t *testing.T, name string, size int64) string {
	t.Helper()
	m, ok := h.Driver.(hypervisor.DiskMaker)
	if !ok {
		return sparse(t, name, size)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := m.MakeDisk(path, size); err != nil {
		t.Fatalf("MakeDisk: %v", err)
	}
	if err := m.MakeDisk(path, size); !errors.Is(err, fs.ErrExist) {
		t.Errorf("MakeDisk over a disk: %v, want %v", err, fs.ErrExist)
	}
	return path
}

func testDisks(t *testing.T, h Harness) {
	cfg := h.testConfig(t)
	cfg.Disks = []hypervisor.Disk{
		{Path: sparse(t, "system.img", 1<<20), ReadOnly: true, Serial: "system"},
		{Path: h.dataDisk(t, "data, 'with' a comma.img", 64<<20), Serial: "data"},
	}
	vm, _ := h.Boot(t, cfg)
	if got, want := h.Control(t, vm, "disks"), "system:1048576:ro data:67108864:rw"; got != want {
		t.Errorf("the guest has the disks %q, want %q", got, want)
	}

	// Two VMs on one disk would ruin it. One that nobody writes to can be shared.
	second := h.testConfig(t)
	second.Disks = cfg.Disks[:1]
	other := h.start(t, second)
	if err := other.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	second.Disks = cfg.Disks
	if err := h.refuse(t, second); !errors.Is(err, hypervisor.ErrDiskInUse) || hint.Of(err) == "" {
		t.Errorf("a second VM on a disk: %v (hint: %q), want %v and a hint", err, hint.Of(err), hypervisor.ErrDiskInUse)
	}
	if err := vm.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	other = h.start(t, second) // the disk is free now
	if err := other.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// testShares shares directories, if the driver can.
func testShares(t *testing.T, h Harness) {
	cfg := h.testConfig(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("of the host\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	share := hypervisor.Share{Tag: "share", Dir: dir}
	cfg.Shares = []hypervisor.Share{share}
	s, ok := h.Driver.(hypervisor.Sharer)
	if !ok {
		h.refuse(t, cfg)
		return
	}
	if err := s.CheckShare(share); err != nil {
		t.Fatalf("CheckShare: %v", err)
	}
	vm, _ := h.Boot(t, cfg)
	if got := h.Control(t, vm, "read share file"); got != "of the host" {
		t.Errorf("the guest reads %q in a share", got)
	}
	cfg = h.testConfig(t)
	share.Dir = filepath.Join(dir, "missing")
	cfg.Shares = []hypervisor.Share{share}
	if err := s.CheckShare(share); err == nil {
		t.Error("a directory that does not exist can be shared")
	}
	h.refuse(t, cfg)
}

// testNested starts a VM that may run VMs, if the driver and the machine can.
func testNested(t *testing.T, h Harness) {
	cfg := h.testConfig(t)
	cfg.Nested = true
	n, ok := h.Driver.(hypervisor.Nester)
	if ok {
		if err := n.CheckNested(t.Context()); err == nil {
			h.Boot(t, cfg)
			return
		}
	}
	h.refuse(t, cfg)
}
