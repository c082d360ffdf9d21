package supervisor

import (
	"bytes"
	"encoding/pem"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lsub/lsub/internal/testcert"
)

func testCertificate(t *testing.T, name string) []byte {
	t.Helper()
	cert, err := testcert.NewAuthority(name)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestReadBundle(t *testing.T) {
	one, two := testCertificate(t, "one"), testCertificate(t, "two")
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")})
	path := filepath.Join(t.TempDir(), "ca.pem")
	for _, tc := range []struct {
		name, text string
		want       int
		err        string
	}{
		{"one", string(one), 1, ""},
		{"two with words between", "# ours\n" + string(one) + "\n# theirs\r\n" + strings.ReplaceAll(string(two), "\n", "\r\n"), 2, ""},
		{"a key", string(one) + string(key), 0, "has a private key; it may have certificates alone"},
		{"nothing", "hello", 0, "has no certificate in PEM form"},
		{"a broken one", string(one) + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 0, "certificate 2: "},
		{"too much", strings.Repeat("x", maxBundle+1), 0, "more than 4194304 bytes"},
	} {
		if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		certs, err := readBundle(path)
		if len(certs) != tc.want || (err != nil) != (tc.err != "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: %d certificates, %v; want %d, %q", tc.name, len(certs), err, tc.want, tc.err)
		}
	}
	if _, err := readBundle("/no/such/file"); err == nil {
		t.Error("a file that is not there")
	}
	if certs, err := readBundle(""); certs != nil || err != nil {
		t.Errorf("no file: %v, %v", certs, err)
	}
}

// TestTrustScript runs it in a directory that stands for a distro.
func TestTrustScript(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("this host has no sh")
	}
	one, two := testCertificate(t, "one"), testCertificate(t, "two")
	for _, tc := range []struct{ there, dir string }{
		{"etc", "usr/local/share/ca-certificates"},
		{"etc/pki/ca-trust/source", "etc/pki/ca-trust/source/anchors"},
		{"etc/ca-certificates/trust-source", "etc/ca-certificates/trust-source/anchors"},
		{"etc/pki/trust", "etc/pki/trust/anchors"},
	} {
		root := t.TempDir()
		if err := os.MkdirAll(filepath.Join(root, tc.there), 0o700); err != nil {
			t.Fatal(err)
		}
		run := func(certs ...[]byte) {
			t.Helper()
			script := strings.NewReplacer(" /etc", " "+root+"/etc", "=/etc", "="+root+"/etc", "=/usr", "="+root+"/usr",
				"update-ca-", "no-such-tool-").Replace(trustScript(certs))
			cmd := exec.Command(sh, "-s")
			cmd.Stdin = strings.NewReader(script)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s\n%s", err, out, script)
			}
		}
		dir := filepath.Join(root, tc.dir)
		run(one, two)
		if err := os.WriteFile(filepath.Join(dir, "other.crt"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string][]byte{"lsub-001.crt": one, "lsub-002.crt": two} {
			if got, err := os.ReadFile(filepath.Join(dir, name)); !bytes.Equal(got, want) {
				t.Errorf("%s/%s: %q, %v", tc.dir, name, got, err)
			}
		}
		run(two)
		if got := filesBelow(t, root); len(got) != 2 {
			t.Errorf("with one of two: %v", got)
		}
		run()
		if got := filesBelow(t, root); len(got) != 1 || filepath.Base(got[0]) != "other.crt" {
			t.Errorf("without any: %v", got)
		}
	}
}

// filesBelow lists the files below a directory.
func filesBelow(t *testing.T, dir string) (files []string) {
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
