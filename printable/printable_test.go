package printable

import (
	"bytes"
	"testing"
)

func TestText(t *testing.T) {
	for text, want := range map[string][2]string{
		"nginx":                  {"nginx", "nginx"},
		"a\nb\tc":                {"a\nb\tc", "a?b?c"},
		"\x1b]0;pwn\a\x1b[31mQ":  {"?]0;pwn??[31mQ", "?]0;pwn??[31mQ"},
		"\xff\u009b1m":           {"??1m", "??1m"},
		"Zoë 日本 👩‍🚀":             {"Zoë 日本 👩‍🚀", "Zoë 日本 👩‍🚀"},
		"gpj.\u202eexe\u2028x\r": {"gpj.?exe?x?", "gpj.?exe?x?"},
	} {
		if got := [2]string{Text(text), Line(text)}; got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// What is written in pieces of any size is what is written at once.
func TestWriter(t *testing.T) {
	const text = "Zoë\r\n\x1b]52;c;eA==\a 日本\xe6\x97 end"
	const want = "Zoë\n?]52;c;eA==? 日本?? end"
	for size := 1; size <= len(text); size++ {
		var b bytes.Buffer
		w := Writer(&b)
		for rest := text; rest != ""; {
			n, err := w.Write([]byte(rest[:min(size, len(rest))]))
			if err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if b.String() != want {
			t.Errorf("in pieces of %d: %q, want %q", size, &b, want)
		}
	}
}
