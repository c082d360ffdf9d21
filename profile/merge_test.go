package profile

import (
	"errors"
	"io/fs"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// sourceOf has files for bases, by their paths.
func sourceOf(files map[string]string) Source {
	return Source{Dir: "/top", File: func(path string) ([]byte, error) {
		text, ok := files[path]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
		return []byte(text), nil
	}, Fetch: func(url, sum string) ([]byte, error) { return []byte(files[url]), nil }}
}

// TestMerge compares a file on a base with a file that says it all.
func TestMerge(t *testing.T) {
	for name, c := range map[string]struct{ under, over, want string }{
		"nothing on nothing": {"", "base: b.yaml", ""},
		"all of it":          {"cpus: 2\nmounts: [~/a]", "base: b.yaml", "cpus: 2\nmounts: [~/a]"},
		"a value":            {"cpus: 2\nmemory: 1G", "base: b.yaml\ncpus: 3", "cpus: 3\nmemory: 1G"},
		"keys":               {"idle: {vm: 5m}", "base: b.yaml\nidle: {distro: 6m}", "idle: {vm: 5m, distro: 6m}"},
		"the default":        {"cpus: 2", "base: b.yaml\ncpus:", ""},
		"lists":              {"network: {dns: [1.1.1.1]}", "base: b.yaml\nnetwork: {dns: 9.9.9.9}", "network: {dns: [1.1.1.1, 9.9.9.9]}"},
		"the same item":      {"distros: {a: {packages: [git, jq]}}", "base: b.yaml\ndistros: {a: {packages: [git, vim]}}", "distros: {a: {packages: [git, jq, vim]}}"},
		"an empty list":      {"mounts: [~/a]", "base: b.yaml\nmounts: []", "mounts: []"},
		"a path":             {"mounts: [~/a, ~/b]", "base: b.yaml\nmounts: [{path: ~/a, writable: yes}]", "mounts: [{path: ~/a, writable: yes}, ~/b]"},
		"a named step":       {"distros: {a: {provision: [{name: x, script: one}, two]}}", "base: b.yaml\ndistros: {a: {provision: [{name: x, script: other}]}}", "distros: {a: {provision: [{name: x, script: other}, two]}}"},
		"kinds":              {"network: {proxy: {http: 'http://p:1'}}", "base: b.yaml\nnetwork: {proxy: off}", "network: {proxy: off}"},
		"distros":            {"distros: {a: {}, b: {user: ada}}", "base: b.yaml\ndistros: {c: , b: {image: debian}}", "distros: {a: {}, b: {user: ada, image: debian}, c: }"},
		"paths":              {"distros: {a: {files: {/x: {source: f}, /y: {source: /f}}, provision: [{file: s.sh}]}}", "base: sub/b.yaml", "distros: {a: {files: {/x: {source: /top/sub/f}, /y: {source: /f}}, provision: [{file: /top/sub/s.sh}]}}"},
		"a base of a base":   {"base: c.yaml\ncpus: 3", "base: b.yaml", "cpus: 3\nmemory: 1G"},
		"an address":         {"cpus: 4", "base: {url: 'https://b.example/b', sha256: " + strings.Repeat("a", 64) + "}", "cpus: 4"},
		"params":             {"params: {n: 2}\ncpus: ${param.n}", "base: b.yaml\nparams: {n: 5}", "params: {n: 5}\ncpus: 5"},
	} {
		files := map[string]string{"/top/b.yaml": c.under, "/top/sub/b.yaml": c.under, "/top/c.yaml": "memory: 1G\ncpus: 9", "https://b.example/b": c.under}
		got, err := ParseFrom("f", []byte(c.over), sourceOf(files))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want, err := Parse("f", []byte(c.want))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Profile{}), cmpopts.IgnoreFields(Step{}, "At"), cmpopts.IgnoreFields(GuestFile{}, "At"), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{})); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
}

func TestBadBases(t *testing.T) {
	src := sourceOf(map[string]string{
		"/top/bad.yaml": "# x\ncpu: 1", "/top/loop.yaml": "base: loop.yaml", "/top/ports.yaml": "ports: {forwards: [80 -> 80]}", "/top/many.yaml": "cpus: many",
	})
	for text, want := range map[string]string{
		"base: template:dokcer":     `f:1:7: base: there is no template "dokcer"; there are agent-sandbox, `,
		"base: none.yaml":           "f:1:7: base: open /top/none.yaml: file does not exist",
		"base: bad.yaml":            "f:1:7: base: /top/bad.yaml:2:1: unknown key \"cpu\"",
		"base: loop.yaml":           "more than 8 files build on each other",
		"base: https://b.example/b": "f:1:7: base: an address needs its digest: write {url: https://b.example/b, sha256: …}",
		"base: [a]":                 "f:1:7: base has to be one value, not a list",
		"base: ports.yaml\nports: {forwards: [80 -> debian:80]}": "f:2:20: port 80 is listened on already",
	} {
		_, err := ParseFrom("f", []byte(text), src)
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
}

func TestParams(t *testing.T) {
	const text = "params: {who: ada, n: 2, e: }\ncpus: ${param.n}\ndistros:\n  a:\n    user: ${param.who}\n" +
		"    environment: {A: 'x${param.e}y', B: '$${param.n}', C: '${HOME}'}\n" +
		"    files: {/x: '${param.who} ${param.other} $${param.who}', /y: {content: '{{x}} ${param.n}'}}\n" +
		"    provision: ['echo ${param.n} ${param.other} ${x} $y']\n"
	p, err := ParseFrom("f", []byte(text), Source{Set: map[string]string{"n": "3"}})
	if err != nil {
		t.Fatal(err)
	}
	a := p.Distros["a"]
	if p.CPUs != 3 || a.User != "ada" || !cmp.Equal(a.Environment, []string{"A=xy", "B=${param.n}", "C=${HOME}"}) {
		t.Errorf("%d, %+v", p.CPUs, a)
	}
	if a.Files[0].Content != "ada ${param.other} ${param.who}" || a.Files[1].Content != "{{x}} 3" || a.Provision[0].Script != "echo 3 ${param.other} ${x} $y" {
		t.Errorf("%+v", a)
	}
	for text, want := range map[string]string{
		"cpus: ${param.n}":                         `f:1:7: there is no param "n"`,
		"params: {a-b: 1}":                         `f:1:10: params: "a-b" cannot be the name of a param`,
		"params: {n: many}\ncpus: ${param.n}":      `f:2:7: cpus: "many" is no number of CPUs`,
		"params: {n: [1]}":                         "f:1:13: params.n has to be one value, not a list",
		"params: {count: 1}\ncpus: ${param.count}": `did you mean "count"?`,
	} {
		src := Source{}
		if strings.Contains(want, "did you mean") {
			src.Set = map[string]string{"cuont": "1"}
		}
		if _, err := ParseFrom("f", []byte(text), src); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
}

// FuzzMerge wants a profile or an error with places, whatever is merged with what.
func FuzzMerge(f *testing.F) {
	f.Add([]byte("cpus: 2\ndistros: {a: {packages: [git]}}"), []byte("base: b.yaml\ndistros: {a: {packages: [vim]}}"))
	f.Add([]byte("params: {n: 1}\ncpus: ${param.n}"), []byte("base: b.yaml\nparams: {n: '${param.n}'}"))
	f.Add([]byte("a: &a [*a]"), []byte("base: b.yaml\nports: &p\n  forwards: [1 -> 1]\nx: *p\n"))
	f.Add([]byte(wholeDistro), []byte("base: b.yaml\ndistros: {web: {provision: [{name: dot files, script: x}]}}"))
	f.Fuzz(func(t *testing.T, under, over []byte) {
		p, err := ParseFrom("f", over, Source{File: func(path string) ([]byte, error) {
			if !strings.HasSuffix(path, "b.yaml") {
				return nil, fs.ErrNotExist
			}
			return under, nil
		}})
		var e *Error
		if err != nil && (p != nil || !errors.As(err, &e) || len(e.Problems) == 0) {
			t.Fatalf("%q on %q: %v", over, under, err)
		}
	})
}
