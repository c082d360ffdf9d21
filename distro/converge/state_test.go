package converge

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lsub/lsub/profile"
)

func TestParseState(t *testing.T) {
	got := parseState([]byte("welcome to the machine\nmark step-ab two words\nmark file-cd /etc/a b\nmanager apt-get\npackage git\n" +
		"file 3 ab12 644 root adm 0 4\nfile x y\nfile -1 a b c d e f\nguard 2\nguard\nsystemd\nconf\n[boot]\nmark x\n"))
	want := &state{
		marks: map[string]string{"step-ab": "two words", "file-cd": "/etc/a b"}, manager: "apt-get", packages: map[string]bool{"git": true},
		files: map[int]fileState{3: {"ab12", "644", "root", "adm", "0", "4"}}, guards: map[int]bool{2: true}, systemd: true,
		conf: "[boot]\nmark x\n",
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(state{}, fileState{})); diff != "" {
		t.Error("-want +got:\n" + diff)
	}
}

func TestFileIs(t *testing.T) {
	f := fileState{"ab", "640", "root", "adm", "0", "4"}
	for owner, want := range map[string]bool{"": false, "root": true, "root:adm": true, "0:4": true, "root:root": false, "ada": false} {
		if got := f.is(profile.GuestFile{Path: "/x", Mode: 0o640, Owner: owner}, "ab"); got != want {
			t.Errorf("owner %q: %v, want %v", owner, got, want)
		}
	}
	if f.is(profile.GuestFile{Path: "/x", Mode: 0o600, Owner: "root"}, "ab") || f.is(profile.GuestFile{Path: "/x", Mode: 0o640, Owner: "root"}, "cd") {
		t.Error("another mode or content is the same")
	}
	if !f.is(profile.GuestFile{Path: "~/x", Mode: 0o640}, "ab") {
		t.Error("a file in the home directory is as it was written")
	}
}

func TestQuoted(t *testing.T) {
	if got := quoted("it's $x"); got != `'it'\''s $x'` {
		t.Error(got)
	}
}

func TestParseCondition(t *testing.T) {
	for text, want := range map[string]Condition{"ready": {}, "stopped": {Stopped: true}, "port:80": {Port: 80}} {
		if got, err := ParseCondition(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "port:", "port:65536", "port:-1", "running"} {
		if c, err := ParseCondition(text); err == nil {
			t.Errorf("%q is %v", text, c)
		}
	}
}

// FuzzParseState wants no more than a state, whatever a distro says.
func FuzzParseState(f *testing.F) {
	f.Add([]byte("mark step-ab two\nfile 3 ab12 644 root adm 0 4\nguard 2\nconf\n[boot]\nsystemd=true\n"))
	f.Add([]byte("file 99999999999999999999 a b c d e f\nguard -1\nmark\nmanager\n\n\x00"))
	f.Fuzz(func(t *testing.T, out []byte) {
		s := parseState(out)
		for i := range s.files {
			if i < 0 {
				t.Fatal("a file has no place")
			}
		}
		value(s.conf)
	})
}
