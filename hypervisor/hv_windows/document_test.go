package hvwindows_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lsub/lsub/hypervisor"
	hvwindows "github.com/lsub/lsub/hypervisor/hv_windows"
	"github.com/lsub/lsub/hypervisor/hv_windows/hcstest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// full asks for everything that a VM can have.
func full() hypervisor.Config {
	return hypervisor.Config{
		Name: "lsub-default", Dir: `C:\Users\Zoë\AppData\Local\Temp\lsub`,
		Kernel: `C:\Users\Zoë B\lsub\cache\kernel`, Initrd: `C:\Users\Zoë B\lsub\cache\initrd`,
		Cmdline: "quiet lsub.idle=5m0s", CPUs: 8, Memory: 4<<30 + 4711, Nested: true,
		Disks: []hypervisor.Disk{
			{Path: `C:\Users\Zoë B\lsub\cache\system.img.vhdx`, ReadOnly: true, Serial: "lsub-system"},
			{Path: `C:\Users\Zoë B\lsub\profiles\default\data.img`, Serial: "lsub-data"},
		},
		Console: `C:\Users\Zoë B\lsub\profiles\default\console.log`,
	}
}

func TestDocument(t *testing.T) {
	old, arm := hcstest.Windows(), hcstest.Windows()
	old.Schema = hvwindows.Version{Major: 2, Minor: 2}
	arm.Arch = "arm64"
	bare := hypervisor.Config{Name: "lsub-x", Dir: "d", Kernel: "k", CPUs: 1, Memory: 128 << 20, Console: "c"}
	for _, c := range []struct {
		name  string
		cfg   hypervisor.Config
		facts hvwindows.Facts
	}{{"full", full(), hcstest.Windows()}, {"bare", bare, hcstest.Windows()}, {"old-windows", full(), old}, {"arm64", full(), arm}} {
		t.Run(c.name, func(t *testing.T) {
			got, err := hvwindows.NewDocument(&c.cfg, c.facts)
			if err != nil {
				t.Fatal(err)
			}
			if err := hcstest.Validate(got); err != nil {
				t.Error(err)
			}
			golden := filepath.Join("testdata", "documents", c.name+".json")
			if *update {
				if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(strings.TrimSpace(strings.ReplaceAll(string(want), "\r", "")), string(got)); d != "" {
				t.Error(d)
			}
		})
	}
	apart := full()
	apart.Initrd = `D:\initrd`
	if _, err := hvwindows.NewDocument(&apart, arm); err == nil {
		t.Error("on arm64, a kernel and an initrd in two directories are taken")
	}
}

// TestSchema holds the schema to links for each field, and sees that it finds mistakes.
func TestSchema(t *testing.T) {
	var walk func(path string, v any)
	walk = func(path string, v any) {
		m, ok := v.(map[string]any)
		if !ok {
			return
		}
		if text, _ := m["description"].(string); !strings.HasPrefix(text, "#") {
			t.Errorf("%s has no place in the reference", path)
		}
		properties, _ := m["properties"].(map[string]any)
		for name, p := range properties {
			walk(path+"/"+name, p)
		}
		if more, ok := m["additionalProperties"].(map[string]any); ok {
			walk(path+"/*", more)
		}
	}
	var schema map[string]any
	if err := json.Unmarshal(hcstest.Schema, &schema); err != nil {
		t.Fatal(err)
	}
	walk("", schema)

	cfg := full()
	good, err := hvwindows.NewDocument(&cfg, hcstest.Windows())
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{
		`"KernelFilePath"`:        `"KernelPath"`,
		`"Count": 8`:              `"Count": "8"`,
		`"VirtualDisk"`:           `"Virtualdisk"`,
		`"SizeInMB": 4096`:        `"SizeInMB": 4096.5`,
		`"StopOnReset": true`:     `"StopOnReset": 1`,
		`"Owner": "lsub-default"`: `"Owner": ""`,
	} {
		bad := strings.Replace(string(good), from, to, 1)
		if bad == string(good) {
			t.Errorf("the document has no %s", from)
		}
		if hcstest.Validate([]byte(bad)) == nil {
			t.Errorf("the schema allows %s", to)
		}
	}
}
