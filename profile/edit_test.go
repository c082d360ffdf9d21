package profile

import (
	"strings"
	"testing"
)

func TestInsert(t *testing.T) {
	for name, c := range map[string]struct{ before, key, value, after string }{
		"nothing":          {"", "cpus", "2", "cpus: 2\n"},
		"comments":         {"# mine\n\n# last", "idle.vm", "5m", "# mine\n\n# last\nidle:\n  vm: 5m\n"},
		"at the end":       {"# one\nmemory: 2G # two\n\n\n# three\nports:\n    auto: no", "cpus", "2", "# one\nmemory: 2G # two\n\n\n# three\nports:\n    auto: no\ncpus: 2\n"},
		"CR LF":            {"memory: 2G\r\n", "idle.vm", "5m", "memory: 2G\r\nidle:\r\n  vm: 5m\r\n"},
		"byte order mark":  {"\ufeff{memory: 2G}", "cpus", "2", "\ufeff{cpus: 2, memory: 2G}"},
		"below a key":      {"idle: # when\n    # why\n    vm: 5m\ncpus: 2\n", "idle.distro", "1h", "idle: # when\n    distro: 1h\n    # why\n    vm: 5m\ncpus: 2\n"},
		"in braces":        {"idle: {vm: 5m} # x\n", "idle.distro", "1h", "idle: {distro: 1h, vm: 5m} # x\n"},
		"in empty braces":  {"network: {}\n", "network.proxy", "off", "network: {proxy: off}\n"},
		"all in braces":    {"{\"é\\u0020x\": 1, cpus: 2}", "idle.vm", "5m", ""},
		"deep in braces":   {"{cpus: 2}", "idle.vm", "5m", "{idle: {vm: 5m}, cpus: 2}"},
		"without a value":  {"cpus: # how many\nmemory: 2G\n", "cpus", "2", "cpus: 2 # how many\nmemory: 2G\n"},
		"an empty mapping": {"idle: # x\nmemory: 2G\n", "idle.vm", "5m", "idle: # x\n  vm: 5m\nmemory: 2G\n"},
		"there":            {"idle:\n  vm: 5m\n", "idle.vm", "1m", "idle:\n  vm: 5m\n"},
		"a long text":      {"distros:\n  a:\n    provision:\n    - |\n      echo a\n\n      cpus: 3\n", "cpus", "2", "distros:\n  a:\n    provision:\n    - |\n      echo a\n\n      cpus: 3\ncpus: 2\n"},
	} {
		got, _, err := Insert("t.yaml", []byte(c.before), c.key, c.value)
		if c.after == "" {
			if err == nil {
				t.Errorf("%s: %q", name, got)
			}
			continue
		}
		if err != nil || string(got) != c.after {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// FuzzInsert wants a file that has the key and all that it had before, in its order.
func FuzzInsert(f *testing.F) {
	for _, seed := range []string{"", "# c\ncpus: 2\n", "{cpus: 2}", "idle: {vm: 5m}\n", "idle:\n  # c\n  vm: never\r\n", "idle:\n", "a: &x {}\nidle: *x", "\ufeffcpus: 2", "--- # x\ncpus: 2\n...\n", wholeDistro} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if strings.Contains(string(data), "\x00") {
			return
		}
		before, err := Parse("f", data)
		if err != nil {
			return
		}
		out, there, err := Insert("f", data, "idle.distro", "7m")
		if err != nil {
			return // it says so, and writes nothing
		}
		after, err := Parse("f", out)
		if err != nil {
			t.Fatalf("%q became %q: %v", data, out, err)
		}
		if there != (string(out) == string(data)) || !there && after.Idle.Distro.Minutes() != 7 {
			t.Fatalf("%q became %q, there: %v", data, out, there)
		}
		if before.Memory != after.Memory || before.CPUs != after.CPUs || before.Idle.VM != after.Idle.VM || len(before.Distros) != len(after.Distros) {
			t.Fatalf("%q became %q", data, out)
		}
	})
}
