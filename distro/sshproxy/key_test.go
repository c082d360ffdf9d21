package sshproxy

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	gossh "golang.org/x/crypto/ssh"
)

func TestHostKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ssh")
	marshal := func() string {
		key, err := HostKey(t.Context(), dir)
		if err != nil {
			t.Error(err)
			return ""
		}
		return string(gossh.MarshalAuthorizedKey(key.PublicKey()))
	}
	var all [4]string
	var wg sync.WaitGroup
	for i := range all { // as several clients at once that are the first
		wg.Go(func() { all[i] = marshal() })
	}
	wg.Wait()
	for _, k := range all {
		if k == "" || k != all[0] {
			t.Fatalf("several keys: %q", all)
		}
	}
	known, err := os.ReadFile(KnownHosts(dir))
	if err != nil || string(known) != "lsub "+all[0] {
		t.Errorf("known hosts: %q, %v", known, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "host_key")); err != nil || info.Mode().Perm() != 0o600 && os.PathSeparator == '/' {
		t.Errorf("the key's file: %v, %v", info, err)
	}
	os.WriteFile(filepath.Join(dir, "host_key"), []byte("broken"), 0o600)
	if again := marshal(); again == all[0] || again == "" {
		t.Errorf("a broken key gives %q", again)
	}
	if now, _ := os.ReadFile(KnownHosts(dir)); bytes.Equal(now, known) {
		t.Error("clients know the old key")
	}
}

func TestHostBlock(t *testing.T) {
	if os.PathSeparator != '/' {
		t.Skip("the words are quoted for a shell of Unix")
	}
	got := HostBlock("d.lsub", "/a%b", []string{"/opt/my lsub", "--home=/it's", "100%"})
	for _, want := range []string{
		"Host d.lsub\n", "  User default\n", `  ProxyCommand '/opt/my lsub' '--home=/it'\''s' '100%%'` + "\n",
		`  UserKnownHostsFile "/a%%b/known_hosts"` + "\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s\nhas no %q", got, want)
		}
	}
}

func TestIsLocalhost(t *testing.T) {
	for host, want := range map[string]bool{"localhost": true, "127.0.0.1": true, "127.9.9.9": true, "::1": true, "0.0.0.0": false, "10.0.0.1": false, "example.com": false, "": false} {
		if isLocalhost(host) != want {
			t.Errorf("%q", host)
		}
	}
}
