package images

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDebianOfAnyHost builds one image twice, on a host without a name and on one whose
// name is another: it has the same bytes, whatever the host's name and the user's time
// zone and language are, and it has no keys that its distros would share.
func TestDebianOfAnyHost(t *testing.T) {
	needBootstrap(t)
	if os.Geteuid() != 0 {
		t.Skip("only root may name a host")
	}
	ref, err := ParseRef("debian?include=openssh-server,ssl-cert")
	if err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	t.Setenv("TZ", "Asia/Tokyo")
	bare, id := onHost(t, "", cache, ref)
	t.Setenv("TZ", "America/Lima")
	t.Setenv("LANG", "de_DE.UTF-8")
	named, again := onHost(t, "other.example", cache, ref)
	checkCache(t, cache, 1)
	if id != again {
		t.Errorf("two builds gave %s and %s", id, again)
	}
	all := maps.Clone(bare)
	maps.Copy(all, named)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if bare[name] != named[name] {
			t.Errorf("%s: %q on one host, %q on the other", name, bare[name], named[name])
		}
	}
	empty := fmt.Sprintf("%x", sha256.Sum256(nil))
	for _, key := range []string{"etc/ssh/ssh_host_ed25519_key", "etc/ssl/private/ssl-cert-snakeoil.key", "etc/machine-id"} {
		if !strings.HasSuffix(bare[key], empty) {
			t.Errorf("%s is not an empty file but %q", key, bare[key])
		}
	}
}

// onHost builds an image on a host of that name, and describes its files: type,
// mode, owner, target, time and the sum of the contents. It returns the image's id too.
func onHost(t *testing.T, hostname, cache string, ref Ref) (files map[string]string, id string) {
	t.Helper()
	var img *Image
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock it: the thread ends with its namespace
		err := unix.Unshare(unix.CLONE_NEWUTS)
		if err == nil {
			err = unix.Sethostname([]byte(hostname))
		}
		if err == nil {
			img, err = (&Debian{CacheDir: cache, Refresh: true}).Pull(t.Context(), ref, nil)
		}
		failed <- err
	}()
	if err := <-failed; err != nil {
		t.Fatalf("host %q: %v", hostname, err)
	}
	r, err := img.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	files = map[string]string{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return files, img.ID
		}
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, tr); err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(h.Name, "./")] = fmt.Sprintf("%c %o %d:%d %s %d %x", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, h.ModTime.Unix(), sum.Sum(nil))
	}
}
