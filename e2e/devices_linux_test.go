package e2e

import (
	"strings"
	"testing"
)

// Root in a distro cannot open the VM's disks, which have the files of all distros, under any
// name. Ordinary uses of devices work.
func TestDisksAreClosed(t *testing.T) {
	h := debian(t)
	out := h.sh(t, "debian", `cd /root
refused() { if "$@" 2>err; then echo "$* works"; else grep -q 'not permitted' err || cat err; fi; }
for disk in /dev/vd?; do refused head -c 1 "$disk"; refused dd of="$disk" count=0 status=none; done
dev=$(stat -c '%Hr %Lr' /dev/vdb)
refused mknod disk b $dev
refused mknod disk b ${dev% *} 17
refused head -c 1 /dev/mem
mkdir -p m; mount /dev/vdb m 2>err && echo the data disk is mounted
unshare -C -m sh -c 'head -c 1 /dev/vdb' 2>/dev/null && echo it is open to other namespaces
systemd-run -q --pipe --wait --collect -p DevicePolicy=closed -p 'DeviceAllow=block-* rwm' head -c 1 /dev/vdb 2>/dev/null && echo it is open to services
systemd-run -q --pipe --wait --collect -p DevicePolicy=closed head -c 1 /dev/loop-control 2>/dev/null && echo DevicePolicy does nothing
test "$(findmnt -no FSTYPE,OPTIONS / | grep -o 'btrfs rw')" || findmnt /
mknod null c 1 3; echo x >null; rm null
truncate -s 1M image; loop=$(losetup -f --show image); echo through a loop device >$loop; losetup -d $loop; grep -qa 'through a loop' image
test -c /dev/fuse; : 3<>/dev/fuse; : 3<>/dev/net/tun
rm -r image m err`)
	if out != "" {
		t.Errorf("%s", strings.TrimSpace(out))
	}
	if log := h.ok(t, "logs"); strings.Contains(log, "can open the VM's disks") {
		t.Errorf("the kernel has no device filter:\n%s", log)
	}
}
