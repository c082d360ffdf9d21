package agent

import "testing"

func TestMountsBelow(t *testing.T) {
	const fstab = "# /dev/sda /var ext4\n\nUUID=1 / btrfs\n/dev/vdc\t/srv/var\text4 defaults 0 0\nbroken\n/dev/vdd /variety ext4\n"
	if mountsBelow(fstab, "/var") {
		t.Error("no mount there is at /var")
	}
	for _, line := range []string{"/dev/vdc /var ext4", " /dev/vdc\t/var/log btrfs"} {
		if !mountsBelow(fstab+line, "/var") {
			t.Errorf("%q is missed", line)
		}
	}
}
