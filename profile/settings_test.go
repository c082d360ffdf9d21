package profile

import "testing"

// TestSettings wants sums that change with what counts for the VM, and with nothing else.
func TestSettings(t *testing.T) {
	sums := func(text string) map[string]string {
		p, err := Parse("t.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return p.Settings()
	}
	base := sums("ports: {forwards: [80 -> 80]}\n")
	for text, changed := range map[string]string{
		"# a comment\n\nports:\n  forwards:\n  - 80 -> 80\n":                "",
		"ports: {forwards: [80 -> 80]}\ndistros: {a: {image: b}}":           "",
		"ports: {forwards: [80 -> 80]}\nnetwork: {proxy: off}":              "",
		"ports: {forwards: [80 -> 81]}":                                     "ports",
		"ports: {forwards: [80 -> 80]}\nmemory: 2G":                         "memory",
		"ports: {forwards: [80 -> 80]}\ncpus: 2":                            "cpus",
		"ports: {forwards: [80 -> 80]}\nidle: {vm: 2m}":                     "idle",
		"ports: {forwards: [80 -> 80]}\nnetwork: {host_access: off}":        "network",
		"ports: {forwards: [80 -> 80]}\nmounts: []":                         "mounts",
		"ports: {forwards: [80 -> 80]}\nnested: false":                      "nested",
		"ports: {forwards: [80 -> 80]}\ndistros: {a: {ports: {auto: off}}}": "distros' ports.auto",
	} {
		for key, sum := range sums(text) {
			if (sum != base[key]) != (key == changed) {
				t.Errorf("%q: %s is changed: %v", text, key, sum != base[key])
			}
		}
	}
}
