package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestFindDisk has disks with serials, and others that are LUNs.
func TestFindDisk(t *testing.T) {
	sys := t.TempDir()
	for _, f := range []string{"block/vda/serial", "block/vdb/serial", "block/sda/size", "class/scsi_disk/0:0:0:0/device/block/sda/size", "class/scsi_disk/0:0:0:1/device/block/sdb/size", "class/scsi_disk/0:0:0:11/device/block/sdc/size"} {
		p := filepath.Join(sys, f)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(map[string]string{"block/vda/serial": "lsub-system\n", "block/vdb/serial": "lsub-data\n"}[f]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		serial string
		luns   []string
		want   string
	}{
		{"lsub-system", nil, "/dev/vda"}, {"lsub-data", nil, "/dev/vdb"}, {"other", nil, ""},
		{"lsub-system", []string{"lsub-system", "lsub-data"}, "/dev/sda"}, {"lsub-data", []string{"lsub-system", "lsub-data"}, "/dev/sdb"},
		{"lsub-data", []string{"lsub-data", "lsub-system"}, "/dev/sda"}, {"third", []string{"a", "b", "third"}, ""},
	} {
		if got, err := findDisk(sys, c.serial, c.luns); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s of %v is %q (%v), want %q", c.serial, c.luns, got, err, c.want)
		}
	}
}
