package vz_test

import (
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/vz"
	"github.com/lsub/lsub/hypervisor/vz/vztest"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestSettings(t *testing.T) {
	full := hypervisor.Config{
		Name: "default", Dir: "/run", Kernel: "/cache/kernel", Initrd: "/cache/initrd",
		Cmdline: "quiet lsub.profile=default", CPUs: 4, Memory: 2<<30 + 4711, Nested: true,
		Console: "/state/console.log",
		Disks: []hypervisor.Disk{
			{Path: "/cache/system.erofs", ReadOnly: true, Serial: "lsub-system"},
			{Path: "/state/data.img", Serial: "lsub-data"},
		},
		NIC:    &hypervisor.NIC{MAC: net.HardwareAddr{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee}, MTU: 65520},
		Shares: []hypervisor.Share{{Tag: "home", Dir: "/Users/me"}, {Tag: "docs", Dir: "/docs", ReadOnly: true}},
	}
	small := full
	small.NIC = &hypervisor.NIC{MAC: full.NIC.MAC, MTU: 1280}
	rosetta := vztest.Mac()
	rosetta.Rosetta = vz.RosettaReady
	missing := vztest.Mac()
	missing.Rosetta = vz.RosettaMissing
	for name, s := range map[string]*vz.Settings{
		"full":      vz.NewSettings(&full, rosetta),
		"small-mtu": vz.NewSettings(&small, missing),
		"bare":      vz.NewSettings(&hypervisor.Config{Kernel: "/k", CPUs: 1, Memory: hypervisor.MinMemory, Console: "/c"}, vztest.Mac()),
	} {
		t.Run(name, func(t *testing.T) {
			b, err := json.MarshalIndent(s, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got, file := string(b)+"\n", filepath.Join("testdata", "settings", name+".golden")
			if *update {
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatalf("%v; go test -update makes it", err)
			}
			if diff := cmp.Diff(strings.ReplaceAll(string(want), "\r\n", "\n"), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		})
	}
}

// TestReferences wants a link to Apple's reference at each field of the settings.
func TestReferences(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "settings.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`https://developer\.apple\.com/documentation/virtualization/vz[a-z/]+\s*$`)
	fields := 0
	ast.Inspect(f, func(n ast.Node) bool {
		s, ok := n.(*ast.StructType)
		if !ok {
			return true
		}
		for _, field := range s.Fields.List {
			fields++
			if !link.MatchString(field.Doc.Text()) {
				t.Errorf("%s has no link to Apple's reference at the end of its comment", field.Names[0])
			}
		}
		return true
	})
	if fields < 20 {
		t.Errorf("the settings have %d fields, there were more", fields)
	}
}

// TestBinding reads the source of the binding: a stream has to keep its socket in the field
// where the driver looks for it.
func TestBinding(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/Code-Hex/vz/v3").Output()
	if err != nil {
		t.Skipf("the binding's source is not here: %v", err)
	}
	file := filepath.Join(strings.TrimSpace(string(dir)), "socket.go")
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := ""
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok || spec.Name.Name != "VirtioSocketConnection" {
			return true
		}
		for _, field := range spec.Type.(*ast.StructType).Fields.List {
			if field.Names[0].Name != vz.RawConnField {
				continue
			}
			sel, ok := field.Type.(*ast.SelectorExpr)
			if ok {
				found = sel.X.(*ast.Ident).Name + "." + sel.Sel.Name
			}
		}
		return false
	})
	if found != "net.Conn" {
		t.Errorf("the field %s of a stream is a %q, want net.Conn", vz.RawConnField, found)
	}
}

// TestRosettaTag holds the driver to the tag that the guest looks for.
func TestRosettaTag(t *testing.T) {
	mac := vztest.Mac()
	mac.Rosetta = vz.RosettaReady
	if s := vz.NewSettings(&hypervisor.Config{}, mac); s.RosettaTag != guest.RosettaTag {
		t.Errorf("the driver shares %q, the guest wants %q", s.RosettaTag, guest.RosettaTag)
	}
}
