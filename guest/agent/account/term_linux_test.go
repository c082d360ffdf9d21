package account

import (
	"slices"
	"testing"
)

func TestKnownTerm(t *testing.T) {
	debian := []string{"/usr/lib/terminfo/x/xterm-256color", "/usr/lib/terminfo/x/xterm", "/usr/share/terminfo/s/screen"}
	for _, c := range []struct {
		term  string
		files []string
		want  string
	}{
		{"xterm-256color", debian, "xterm-256color"},
		{"xterm-kitty", debian, "xterm-256color"},
		{"screen", debian, "screen"},
		{"xterm-ghostty", append(debian, "/home/ann/.terminfo/x/xterm-ghostty"), "xterm-ghostty"},
		{"alacritty", append(debian, "/usr/share/terminfo/61/alacritty"), "alacritty"}, // as ncurses has it on other systems
		{"foot", []string{"/usr/share/terminfo/x/xterm"}, "xterm"},
		{"../../etc/passwd", append(debian, "/usr/share/terminfo/./../../etc/passwd"), "xterm-256color"},
		{"xterm-kitty", nil, "xterm-kitty"},
	} {
		if got := knownTerm(func(p string) bool { return slices.Contains(c.files, p) }, c.term, "/home/ann"); got != c.want {
			t.Errorf("%s with %v: %s, want %s", c.term, c.files, got, c.want)
		}
	}
}
