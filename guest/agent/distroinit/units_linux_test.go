package distroinit

import (
	"testing"
)

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

func TestQuoteEnv(t *testing.T) {
	got := quoteEnv([]string{"http_proxy=http://u:50%25@p:1", `A=a "b" \c`, "B=x\ny"})
	if want := `"http_proxy=http://u:50%%25@p:1" "A=a \"b\" \\c" "B=x\ny"`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
