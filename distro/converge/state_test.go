package converge

import (
	"strings"
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

func TestStepMark(t *testing.T) {
	a, b := content{sum: "a"}, content{sum: "b"}
	o := &one{has: contents{steps: []content{a, b, a, b}}}
	seen := map[string]bool{}
	for i := range o.has.steps {
		mark := o.stepMark(i, profile.Step{Mode: profile.StepSystem})
		if !isMark.MatchString(mark) || seen[mark] {
			t.Errorf("mark %d is %q", i, mark)
		}
		seen[mark] = true
	}
	first := o.stepMark(1, profile.Step{Mode: profile.StepSystem})
	o.has.steps = []content{b, a}
	if o.stepMark(0, profile.Step{Mode: profile.StepSystem}) != first {
		t.Error("a step that moves has another mark")
	}
	if o.stepMark(0, profile.Step{Creates: "/x"}) != "" {
		t.Error("a step with a guard has a mark")
	}
}

func TestQuoted(t *testing.T) {
	if got := quoted("it's $x"); got != `'it'\''s $x'` {
		t.Error(got)
	}
}

func TestLines(t *testing.T) {
	var told []string
	l := newLines(func(line string) { told = append(told, line) })
	w := l.stream(func(line string) bool { return line == "mine" })
	for _, part := range []string{"be", "fore\nmi", "ne\n10%\r20%\r\nesc\x1b[2J\n", strings.Repeat("x", 2*maxLine) + "\nlast"} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	l.end()
	if len(told) != 6 || told[0] != "before" || told[1] != "20%" || strings.Contains(told[2], "\x1b") || len(told[3]) != maxLine || told[5] != "last" {
		t.Errorf("%.80q", told)
	}
	if len(l.last) > maxLast {
		t.Errorf("%d last lines", len(l.last))
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
