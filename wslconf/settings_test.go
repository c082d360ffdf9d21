package wslconf

import (
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
)

func TestApply(t *testing.T) {
	with := func(change func(*Settings)) Settings {
		s := Defaults()
		change(&s)
		return s
	}
	tests := []struct {
		name, file string
		want       Settings
		warnings   []string
	}{
		{"none", "", Defaults(), nil},
		{"all that count",
			"[boot]\nsystemd=false\ncommand = \"echo '#' >/x\"\ninitTimeout=0x3e8\nprotectBinfmt=0\n[user]\ndefault=ada\n[AUTOMOUNT]\nMountFsTab = FALSE\n" +
				"[network]\nhostname = Box-1\ngenerateHosts=false\ngenerateResolvConf=False\n[time]\nuseWindowsTimezone=false\n[filesystem]\numask=0077\n",
			Settings{Command: "echo '#' >/x", InitTimeout: time.Second, User: "ada", UserAt: "f:7", Hostname: "Box-1", Umask: 0o77}, nil},
		{"without effect", "[automount]\nenabled=false\nroot=/host\noptions=\"metadata,uid=1000\"\nldconfig=true\ncgroups=v2\n[interop]\nenabled=false\nappendWindowsPath=false\n" +
			"[gpu]\nenabled=true\nappendLibPath=true\n[fileServer]\nenabled=true\nlogFile=/x\nlogLevel=2\nlogTruncate=true\n[general]\nguiApplications=true\nhostname=x\n", Defaults(), nil},
		{"bad values", "[boot]\nsystemd=yes\ninitTimeout=soon\n[filesystem]\numask=999\n[network]\nhostname=a b\n[automount]\ncgroups=v1\nroot=mnt\n[user]\ndefault=\n", Defaults(), []string{
			"f:2: boot.systemd = yes: must be true or false",
			"f:3: boot.inittimeout = soon: must be a number of milliseconds",
			"f:5: filesystem.umask = 999: must be octal, as in 022",
			`f:7: network.hostname = "a b": must be letters, digits, -, . and _, at most 63`,
			"f:9: automount.cgroups = v1: distros have control groups of version 2 only",
			"f:10: automount.root = mnt: must be an absolute path",
			`f:12: user.default = "": is no user name`,
		}},
		{"unknown", "systemd=true\n[boot]\nsytemd=true\ndefault=ada\n[wsl2]\nmemory=1GB\nnonsense\n", Defaults(), []string{
			"f:1: systemd is in no [section]",
			"f:3: unknown key boot.sytemd",
			"f:4: unknown key default in section [boot]; it belongs in [user]",
			"f:6: unknown key wsl2.memory",
			"f:7: a setting is written as key = value",
		}},
		{"the first counts", "[user]\ndefault=ada\ndefault=bob\n", with(func(s *Settings) { s.User, s.UserAt = "ada", "f:2" }), []string{"f:3: user.default is set in line 2 already"}},
		{"a bad value leaves the others", "[user]\ndefault=ada\n[boot]\nsystemd=maybe\ncommand=true\n", with(func(s *Settings) { s.User, s.UserAt, s.Command = "ada", "f:2", "true" }),
			[]string{"f:4: boot.systemd = maybe: must be true or false"}},
		{"windows", "\ufeff[user]\r\ndefault=ada\r\n[boot]\r\nsystemd=false", with(func(s *Settings) { s.User, s.UserAt, s.Systemd = "ada", "f:2", false }), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Defaults()
			if warnings := got.Apply("f", []byte(tt.file)); !reflect.DeepEqual(warnings, tt.warnings) {
				t.Errorf("warnings %q, want %q", warnings, tt.warnings)
			}
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// A file that is applied over another changes only its own keys.
func TestApplyOver(t *testing.T) {
	s := Defaults()
	s.Apply("wsl.conf", []byte("[user]\ndefault=ada\n[network]\nhostname=one\n[boot]\nsystemd=false\n"))
	s.Apply("lsub.conf", []byte("[user]\ndefault=bob\n[boot]\nsystemd=true\n"))
	if s.User != "bob" || s.UserAt != "lsub.conf:2" || s.Hostname != "one" || !s.Systemd {
		t.Errorf("got %+v", s)
	}
}

func TestApplyUTF16(t *testing.T) {
	for name, c := range map[string]struct {
		mark string
		big  bool
	}{"little": {"\ufeff", false}, "big": {"\ufeff", true}, "little, no mark": {"", false}, "big, no mark": {"", true}} {
		s := Defaults()
		warnings := s.Apply("f", utf16File(c.mark+"[user]\r\ndefault=ada\r\n", c.big))
		if s.User != "ada" || len(warnings) != 1 || !strings.Contains(warnings[0], "UTF-16") {
			t.Errorf("%s: %+v, %q", name, s, warnings)
		}
	}
}

func utf16File(text string, big bool) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(text)) {
		if big {
			b = append(b, byte(u>>8), byte(u))
		} else {
			b = append(b, byte(u), byte(u>>8))
		}
	}
	return b
}

// An invalid file does not fill the user's screen.
func TestApplyBounds(t *testing.T) {
	s := Defaults()
	warnings := s.Apply("f", []byte("[boot]\ncommand=true\nsystemd="+strings.Repeat("x", 100000)+"\n"+strings.Repeat("junk\n", 1000)))
	if len(warnings) != maxWarnings+1 || warnings[maxWarnings] != "f: and 981 more" || s.Command != "true" {
		t.Errorf("%d warnings, the last %q", len(warnings), warnings[len(warnings)-1])
	}
	for _, w := range warnings {
		if len(w) > 200 {
			t.Errorf("a warning of %d bytes", len(w))
		}
	}
}

func TestSet(t *testing.T) {
	for _, c := range []struct{ name, file, value, want string }{
		{"no file", "", "ada", "[user]\ndefault=ada\n"},
		{"no section", "[boot]\nsystemd=true\n", "ada", "[boot]\nsystemd=true\n\n[user]\ndefault=ada\n"},
		{"no newline at the end", "[boot]\nsystemd=true", "ada", "[boot]\nsystemd=true\n\n[user]\ndefault=ada\n"},
		{"no key", "# x\n[User] # who\n\n[boot]\nsystemd=true\n", "ada", "# x\n[User] # who\ndefault=ada\n\n[boot]\nsystemd=true\n"},
		{"section at the end", "[user]", "ada", "[user]\ndefault=ada\n"},
		{"key", "# x\n[user]\n  Default = bob # him\n[boot]\nsystemd=true", "ada", "# x\n[user]\ndefault=ada\n[boot]\nsystemd=true"},
		{"key that goes on", "[user]\ndefault=b\\\nob\n[boot]\n", "ada", "[user]\ndefault=ada\n[boot]\n"},
		{"of another section", "[boot]\ndefault=x\n[user]\nother=1\n", "ada", "[boot]\ndefault=x\n[user]\ndefault=ada\nother=1\n"},
		{"twice", "[user]\ndefault=a\ndefault=b\n", "ada", "[user]\ndefault=ada\ndefault=b\n"},
		{"windows", "[user]\r\ndefault=bob\r\n", "ada", "[user]\r\ndefault=ada\r\n"},
		{"mark", "\ufeff[boot]\r\nsystemd=1", "ada", "\ufeff[boot]\r\nsystemd=1\r\n\r\n[user]\r\ndefault=ada\r\n"},
		{"quotes", "", "a # \"b\"", "[user]\ndefault=\"a # \\\"b\\\"\"\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := string(Set([]byte(c.file), "user", "default", c.value)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	if got := Set(utf16File("\ufeff[user]\ndefault=bob\n", false), "user", "default", "ada"); string(got) != "\ufeff[user]\ndefault=ada\n" {
		t.Errorf("of UTF-16: %q", got)
	}
}

// For any file, Set changes the key's value and no other key.
func FuzzSet(f *testing.F) {
	f.Add([]byte("[user]\ndefault = x \\\n y # z\r\n[boot]\nq=\"\\"), "ada")
	f.Add([]byte("\ufeffa=\\"), " # ")
	f.Add([]byte("[user"), "\"")
	f.Add([]byte("a\x00[\x00"), "x")
	f.Fuzz(func(t *testing.T, data []byte, value string) {
		if strings.ContainsAny(value, "\x00\r") {
			return
		}
		text, _ := Decode(data)
		before, _ := Parse(text)
		changed := Set(data, "user", "default", value)
		after, _ := Parse(changed)
		got, found := map[string]string{}, false
		for _, e := range after {
			if e.Name == "user.default" {
				found = e.Value == value
			}
			got[e.Name] = e.Value
		}
		if !found {
			t.Fatalf("%q is read from %q", got["user.default"], changed)
		}
		for _, e := range before {
			if v, ok := got[e.Name]; e.Name != "user.default" && (!ok || v != e.Value) {
				t.Fatalf("%s was %q, is %q in %q", e.Name, e.Value, v, changed)
			}
		}
	})
}

// For any input, the warnings are few, short and on one line each.
func FuzzApply(f *testing.F) {
	f.Add([]byte("[boot]\nsystemd=maybe\n[x]\ny=z\n"))
	f.Add([]byte("\xff\xfe[\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := Defaults()
		warnings := s.Apply("f", data)
		if len(warnings) > maxWarnings+2 {
			t.Fatalf("%d warnings", len(warnings))
		}
		for _, w := range warnings {
			if strings.ContainsAny(w, "\n\r\x00\x1b") {
				t.Fatalf("warning %q", w)
			}
		}
	})
}
