package wslconfig

import (
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/lsub/lsub/profile"
)

const example = `# mine
[wsl2]
memory=8GB
Processors = 4
swap=0
nestedVirtualization=false
vmIdleTimeout=-1
localhostForwarding=TRUE
networkingMode=mirrored
autoProxy=false
hostFileSystemAccess=false
memroy=2GB
kernel=C:\\kernels\\bzImage

[general]
instanceIdleTimeout=90000
[experimental]
ignoredPorts=3000, 9000 ,9090
what is this
[wsl2]
processors=many`

func TestImport(t *testing.T) {
	got := map[string]string{}
	for _, s := range Import([]byte(example)) {
		if (s.To == "") != (s.YAML == "") || s.To == "" && s.Why == "" {
			t.Errorf("%+v says nothing", s)
		}
		if s.To != "" {
			got[s.To] = s.YAML
		}
	}
	for key, want := range map[string]string{
		"memory": "8GiB", "cpus": "4", "nested": "false", "idle.vm": "never", "idle.distro": "1m30s",
		"ports.auto": "true", "network.proxy": "off", "mounts": "[]", "ports.ignore": "[3000, 9000, 9090]",
	} {
		if got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
		delete(got, key)
	}
	if len(got) > 0 {
		t.Errorf("besides: %v", got)
	}
	all := Import([]byte(example))
	for _, want := range []string{"WSL has no such key; it has wsl2.memory", "lsub brings its kernel", "WSL does not understand this line", "lsub's VM has no swap", "not needed: ports"} {
		found := false
		for _, s := range all {
			found = found || strings.Contains(s.Why, want)
		}
		if !found {
			t.Errorf("nothing says %q", want)
		}
	}
}

// TestEncodings wants the same of each way in which editors of Windows write the file.
func TestEncodings(t *testing.T) {
	wide := func(text string, high int) []byte {
		b := []byte{}
		for _, u := range utf16.Encode([]rune(text)) {
			pair := []byte{byte(u), byte(u >> 8)}
			b = append(b, pair[high], pair[1-high])
		}
		return b
	}
	crlf := strings.ReplaceAll(example, "\n", "\r\n")
	want := Import([]byte(example))
	for name, data := range map[string][]byte{
		"CR LF": []byte(crlf), "byte order mark": []byte("\ufeff" + example), "last newline": []byte(example + "\n"),
		"UTF-16LE": wide("\ufeff"+crlf, 0), "UTF-16BE": wide("\ufeff"+crlf, 1), "UTF-16LE without mark": wide(crlf, 0),
	} {
		got := Import(data)
		if len(got) != len(want) {
			t.Errorf("%s: %d settings, want %d", name, len(got), len(want))
			continue
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%s: %+v, want %+v", name, got[i], want[i])
			}
		}
	}
}

func FuzzImport(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte("[wsl2]\nmemory=\xff\nignoredPorts=,\n"))
	f.Add([]byte("[experimental]\nignoredPorts=1,]\n[wsl2]\nprocessors=0\nmemory=99999999999999T"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var file []byte
		for _, s := range Import(data) {
			if s.To == "" {
				continue
			}
			out, _, err := profile.Insert("f", file, s.To, s.YAML)
			if err != nil {
				t.Fatalf("%q: %+v: %v", data, s, err)
			}
			file = out
		}
	})
}
