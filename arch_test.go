// Package lsub has no code: this test holds the module to its architecture.
package lsub

import (
	"flag"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/lsub/lsub"

// mayImport says which directories of this module each directory may import, below
// what all may (hint, printable). A directory that is not in the table does not belong here.
// Tests may import more: they wire what is tested.
var mayImport = map[string][]string{
	"atomicfile":                         {},
	"filelock":                           {},
	"vsocksecret":                        {},
	"hint":                               {},
	"printable":                          {},
	"hypervisor":                         {"virtionet"},
	"hypervisor/hvtest":                  {"hypervisor", "virtionet", "vsocksecret"},
	"hypervisor/kvm":                     {"hypervisor", "hypervisor/kvm/vhostnet", "hypervisor/kvm/vhostuser", "hypervisor/kvm/vhostvsock", "virtionet", "vsocksecret"},
	"hypervisor/hvtest/guestfiles":       {"images/guestimage"},
	"hypervisor/vz":                      {"hypervisor", "virtionet"},
	"hypervisor/vz/vztest":               {"hypervisor", "hypervisor/vz", "virtionet"},
	"hypervisor/kvm/vhostfs":             {"hypervisor/kvm/vhostuser", "share"},
	"share":                              {"share/echo"},
	"share/echo":                         {},
	"share/shareproc":                    {"hypervisor/kvm/vhostfs", "share"},
	"guest/agent/sharemount":             {"share/echo"},
	"hypervisor/hv_windows":              {"atomicfile", "hypervisor"},
	"hypervisor/hv_windows/hcstest":      {"hypervisor", "hypervisor/hv_windows"},
	"hypervisor/kvm/vhostuser":           {},
	"hypervisor/kvm/vhostuser/vhosttest": {},
	"hypervisor/kvm/vhostnet":            {"hypervisor/kvm/vhostuser", "virtionet"},
	"hypervisor/kvm/vhostvsock":          {"hypervisor/kvm/vhostuser", "connbuf"},
	"connbuf":                            {},
	"rootfs":                             {"rootfs/pax"},
	"rootfs/pax":                         {},
	"transfer":                           {"rootfs", "rootfs/pax"},
	"guest/tool":                         {"transfer"},
	"wslconf":                            {},
	"profile":                            {"profile/templates"},
	"profile/templates":                  {},
	"profile/schema":                     {},
	"profile/wslconfig":                  {"profile", "wslconf"},
	"guest":                              {"guest/guestv1"},
	"guest/guestv1":                      {},
	"guest/agent":                        {"guest", "guest/agent/account", "guest/agent/archive", "guest/agent/cgroup", "guest/agent/distrofile", "guest/agent/distroinit", "guest/agent/listeners", "guest/agent/network", "guest/agent/nsthread", "guest/agent/procfs", "guest/agent/relay", "guest/agent/sharemount", "guest/agent/store", "guest/agent/sysctl", "guest/agent/tcredirect", "guest/agent/ttywait", "vsocksecret"},
	"guest/agent/account":                {"guest", "guest/agent/distrofile", "wslconf"},
	"guest/agent/archive":                {"guest", "guest/agent/btrfs", "guest/agent/distrofile", "rootfs", "rootfs/pax"},
	"guest/agent/btrfs":                  {},
	"guest/agent/cgroup":                 {"guest", "guest/agent/procfs"},
	"guest/agent/devicefilter":           {},
	"guest/agent/distrofile":             {"wslconf"},
	"guest/agent/distroinit":             {"guest/agent/account", "guest/agent/cgroup", "guest/agent/distrofile", "wslconf"},
	"guest/agent/listeners":              {},
	"guest/agent/network":                {},
	"guest/agent/nsthread":               {},
	"guest/agent/procfs":                 {},
	"guest/agent/relay":                  {"vsocksecret"},
	"guest/agent/sysctl":                 {},
	"guest/agent/store":                  {"atomicfile", "guest", "guest/agent/account", "guest/agent/archive", "guest/agent/btrfs", "guest/agent/distrofile", "guest/agent/procfs", "rootfs"},
	"guest/agent/tcredirect":             {},
	"guest/agent/ttywait":                {},
	"guest/lsubinit":                     {"guest", "guest/agent", "guest/agent/btrfs", "guest/agent/cgroup", "guest/agent/devicefilter", "guest/agent/distroinit", "guest/agent/network", "vsocksecret"},
	"guest/guesttest":                    {"guest", "transfer"},
	"netstack":                           {"netstack/limiter", "netstack/names", "virtionet"},
	"netstack/limiter":                   {},
	"netstack/peeruser":                  {},
	"virtionet":                          {},
	"netstack/names":                     {},
	"netstack/forward":                   {"netstack/limiter", "netstack/peeruser"},
	"netstack/guesttcp":                  {"connbuf", "virtionet"},
	"images":                             {"atomicfile", "filelock", "images/internal", "rootfs", "rootfs/pax", "wslconf"},
	"images/catalogue":                   {"atomicfile", "images", "images/internal"},
	"images/guestimage":                  {"atomicfile", "filelock", "images/internal"},
	"images/internal":                    {"rootfs/pax"},
	"machine":                            {"atomicfile", "filelock", "guest", "profile"},
	"supervisor":                         {"atomicfile", "distro/provision", "hypervisor", "guest", "netstack", "netstack/forward", "netstack/guesttcp", "netstack/names", "netstack/peeruser", "machine", "profile", "share", "share/shareproc", "virtionet"},
	"distro/provision":                   {"guest", "profile"},
	"distro":                             {"atomicfile", "distro/loginitem", "distro/provision", "filelock", "guest", "images", "images/catalogue", "machine", "profile", "distro/crossing", "transfer"},
	"distro/loginitem":                   {"atomicfile"},
	"distro/converge":                    {"distro", "distro/provision", "filelock", "guest", "machine", "profile", "wslconf"},
	"cmd/lsub":                           {"atomicfile", "distro", "distro/converge", "distro/provision", "hypervisor", "hypervisor/kvm", "hypervisor/vz", "hypervisor/hv_windows", "guest", "supervisor", "images", "images/catalogue", "images/guestimage", "machine", "profile", "profile/schema", "profile/templates", "profile/wslconfig", "share/shareproc", "distro/sshproxy"},
	"distro/crossing":                    {},
	"distro/sshproxy":                    {"atomicfile", "distro", "filelock", "guest", "machine"},
}

var update = flag.Bool("update", false, "write the imports in ARCHITECTURE.md anew")

// TestTable compares the imports that ARCHITECTURE.md shows with those of this file.
func TestTable(t *testing.T) {
	const file = "ARCHITECTURE.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]int{} // last words of the directories
	for dir := range mayImport {
		named[path.Base(dir)]++
	}
	rows := map[string]bool{}
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		cells := strings.Split(line, "|")
		if len(cells) != 5 {
			continue
		}
		dir := strings.Trim(cells[1], " `")
		imports, ok := mayImport[dir]
		if !ok {
			continue
		}
		rows[dir] = true
		var short []string
		for _, to := range imports {
			if base := path.Base(to); named[base] == 1 {
				to = base
			}
			short = append(short, to)
		}
		cells[3] = " " + strings.Join(short, ", ") + " "
		if cells[3] == "  " {
			cells[3] = " "
		}
		if want := strings.Join(cells, "|"); want != line && *update {
			lines[i] = want
		} else if want != line {
			t.Errorf("%s has\n%s\nwant\n%s\n(go test . -update writes it)", file, line, want)
		}
	}
	for dir := range mayImport {
		if !rows[dir] && !inner[dir] {
			t.Errorf("%s has no row for %s", file, dir)
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// inner directories need no row: they belong to the one above them.
var inner = map[string]bool{"guest/guestv1": true, "hypervisor/kvm/vhostuser/vhosttest": true, "hypervisor/vz/vztest": true, "hypervisor/hv_windows/hcstest": true, "hypervisor/hvtest/guestfiles": true, "images/internal": true}

// onlyIn keeps each heavy library in one directory.
var onlyIn = map[string]string{
	"github.com/cilium/ebpf":                 "guest/agent", // listeners, devicefilter, tcredirect, ttywait
	"github.com/Code-Hex/vz":                 "hypervisor/vz",
	"github.com/Microsoft/go-winio":          "hypervisor/hv_windows",
	"github.com/santhosh-tekuri/jsonschema":  "hypervisor/hv_windows", // its tests alone
	"github.com/containers/gvisor-tap-vsock": "netstack",
	"github.com/digitalocean/go-qemu":        "hypervisor/kvm",
	"github.com/landlock-lsm/go-landlock":    "share/shareproc",
	"github.com/vishvananda/netlink":         "guest/agent/network",
	"github.com/urfave/cli":                  "cmd/lsub",
	"github.com/gliderlabs/ssh":              "distro/sshproxy",
	"github.com/pkg/sftp":                    "guest/tool",
	"github.com/ulikunitz/xz":                "images",
	"github.com/google/go-containerregistry": "images",
	"github.com/sirupsen/logrus":             "netstack",
	"github.com/miekg/dns":                   "netstack/names",
	"gvisor.dev/gvisor":                      "netstack",
	"go.yaml.in/yaml":                        "profile",
	"github.com/invopop/jsonschema":          "profile/schema", // its tests alone
}

// maxLines keeps files readable; generated ones are not counted.
const maxLines = 600

func TestArchitecture(t *testing.T) {
	walkGo(t, func(file, dir string) {
		if isGenerated(file) {
			return
		}
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(src), "\n"); n > maxLines {
			t.Errorf("%s has %d lines; more than %d are hard to read in one go", file, n, maxLines)
		}
		if strings.HasSuffix(file, "_test.go") || strings.Contains(dir, "testdata") || strings.Contains(dir, "testguest") {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, src, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range f.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			checkImport(t, file, dir, imported)
		}
	})
}

// isGenerated tells whether protoc has written a file.
func isGenerated(file string) bool {
	return strings.HasSuffix(file, ".pb.go") || strings.HasSuffix(file, ".connect.go")
}

func checkImport(t *testing.T, file, dir, imported string) {
	for lib, home := range onlyIn {
		if strings.HasPrefix(imported, lib) && !within(dir, home) {
			t.Errorf("%s imports %s, which only %s may", file, imported, home)
		}
	}
	target, ours := strings.CutPrefix(imported, module+"/")
	if !ours || target == "hint" || target == "printable" {
		return
	}
	home := owner(dir)
	if home == "" {
		t.Errorf("%s: directory %s is not in the table of this test", file, dir)
		return
	}
	for _, allowed := range append(mayImport[home], home) {
		if within(target, allowed) && owner(target) == allowed || target == allowed || strings.HasPrefix(target, "guest/guestv1") && allowed == "guest" {
			return
		}
	}
	t.Errorf("%s imports %s; %s may import %v", file, target, home, mayImport[home])
}

// owner is the directory of the table that dir belongs to: itself, or the nearest
// above it.
func owner(dir string) string {
	for d := dir; d != "."; d = path.Dir(d) {
		if _, ok := mayImport[d]; ok {
			return d
		}
	}
	return ""
}

func within(dir, parent string) bool { return dir == parent || strings.HasPrefix(dir, parent+"/") }

// TestPackageDocs wants one package comment in each directory.
func TestPackageDocs(t *testing.T) {
	docs := map[string]int{}
	walkGo(t, func(file, dir string) {
		if strings.HasSuffix(file, "_test.go") || isGenerated(file) || strings.Contains(dir, "testdata") {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		docs[dir] += 0
		if f.Doc != nil {
			docs[dir]++
		}
	})
	for dir, n := range docs {
		if n != 1 {
			t.Errorf("directory %s has %d package comments, want 1", dir, n)
		}
	}
}

// walkGo calls f for every Go file of the module, with slashed relative paths.
func walkGo(t *testing.T, f func(file, dir string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if name := e.Name(); name != "." && (strings.HasPrefix(name, ".") || name == "out" || name == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(p, ".go") && !strings.HasPrefix(filepath.ToSlash(p), "tools/") {
			f(filepath.ToSlash(p), path.Dir(filepath.ToSlash(p)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
