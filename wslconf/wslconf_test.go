package wslconf

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct {
		name, file string
		want       []string // "line name=value"
		problems   []string
	}{
		{"empty", "", nil, nil},
		{"usual", "[oobe]\ncommand = /etc/oobe.sh\ndefaultUid=1000\n\n[Shortcut]\nIcon = /a b.ico\n",
			[]string{"2 oobe.command=/etc/oobe.sh", "3 oobe.defaultuid=1000", "6 shortcut.icon=/a b.ico"}, nil},
		{"windows", "\ufeff[user]\r\ndefault = ada\r\n", []string{"2 user.default=ada"}, nil},
		{"no newline at the end", "[user]\ndefault=ada", []string{"2 user.default=ada"}, nil},
		{"comments", "# one\n[user] # two\n  # three\ndefault = ada # four\n[boot]#x\ncommand = \"echo # no\" # yes\n",
			[]string{"4 user.default=ada", "6 boot.command=echo # no"}, nil},
		{"quotes and escapes", "[a]\nb = x \" y \" \nc = \\\"q\\\" \\\\ \\t.\nd = \"\"\ne =\n",
			[]string{"2 a.b=x  y ", "3 a.c=\"q\" \\ \t.", "4 a.d=", "5 a.e="}, nil},
		{"continued", "[a]\nb = one \\\n  two\\\r\nthree\nc = 1\n", []string{"2 a.b=one   twothree", "5 a.c=1"}, nil},
		{"before a section", "a = 1\n", []string{"1 a=1"}, nil},
		{"twice", "[a]\nb = 1\n[x]\n[a]\nB = 2\n", []string{"2 a.b=1"}, []string{"line 5: a.b is set in line 2 already"}},
		{"broken lines", "[a\n[]\n[a] b\n[ok]\nkey\n= v\nk_y = 1\nb = \\x\nc = \"open\nd = fine\n", []string{"10 ok.d=fine"},
			[]string{"line 1: a section", "line 2: a section", "line 3: nothing may follow [a]", "line 5: a setting", "line 6: a setting",
				"line 7: a setting", `line 8: unknown escape \x`, `line 9: a quote (")`}},
		{"escape at the end", "[a]\nb = \\", nil, []string{`line 2: unknown escape \`}},
		{"not text", "\x00\xff\n[a]\nb = \xff\n", []string{"3 a.b=\xff"}, []string{"line 1: "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			entries, problems := Parse([]byte(tt.file))
			var got []string
			for _, e := range entries {
				got = append(got, fmt.Sprintf("%d %s=%s", e.Line, e.Name, e.Value))
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if len(problems) != len(tt.problems) {
				t.Fatalf("problems %v, want %q", problems, tt.problems)
			}
			for i, p := range problems {
				if !strings.HasPrefix(p.String(), tt.problems[i]) {
					t.Errorf("problem %q, want %q", p, tt.problems[i])
				}
			}
		})
	}
}

// For any input, the results have valid lines, in the file's order.
func FuzzParse(f *testing.F) {
	f.Add([]byte("[oobe]\ncommand = \"a # b\" \\\n x\\n\ndefaultUid = 1000 # y\n"))
	f.Add([]byte("[a\r\nb = \\q\n\"\n= \\"))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, problems := Parse(data)
		lines := strings.Count(string(data), "\n") + 1
		last, seen := 0, map[string]bool{}
		for _, e := range entries {
			if e.Line <= last || e.Line > lines || seen[e.Name] || e.Name != strings.ToLower(e.Name) || len(e.Value) > len(data) {
				t.Fatalf("entry %+v after line %d of %d", e, last, lines)
			}
			last, seen[e.Name] = e.Line, true
		}
		for _, p := range problems {
			if p.Line < 1 || p.Line > lines || p.Text == "" {
				t.Fatalf("problem %+v of %d lines", p, lines)
			}
		}
	})
}
