package hint

import "testing"

func TestNearest(t *testing.T) {
	names := []string{"list", "install", "debian", "exec"}
	for name, want := range map[string]string{
		"lits": "list", "LIST": "list", "debain": "debian", "instal": "install", "exce": "exec",
		"fedora": "", "ls": "", "": "", "uname": "",
	} {
		if got := Nearest(name, names); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
}
