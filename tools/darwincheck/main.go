// Command darwincheck type-checks the packages of a module for macOS, on any system:
//
//	darwincheck [-C DIR] [PACKAGE…]
//
// The compiler cannot, because cgo needs Apple's headers and a C compiler for them. But the
// types of Go code that uses a cgo library are in Go files: this program reads those of the
// library and of the standard library, takes what comes from C for granted (go/types'
// FakeImportC), and checks the module's own code in full, tests included. It does so for
// arm64 and amd64, as some of Apple's features exist on the one only.
//
// It finds what the type checker finds. It neither links nor runs anything.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	dir := flag.String("C", ".", "a directory of the module")
	flag.Parse()
	packages := flag.Args()
	if len(packages) == 0 {
		packages = []string{"./..."}
	}
	failed := false
	for _, arch := range []string{"arm64", "amd64"} {
		problems, checked, err := check(*dir, arch, packages)
		for _, p := range problems {
			fmt.Fprintf(os.Stderr, "darwincheck: darwin/%s: %v\n", arch, p)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "darwincheck: darwin/%s: %v\n", arch, err)
		}
		if err != nil || len(problems) > 0 {
			failed = true
			continue
		}
		fmt.Printf("darwincheck: darwin/%s: %d packages, no problem\n", arch, checked)
	}
	if failed {
		os.Exit(1)
	}
}

// listed is a package as go list describes it.
type listed struct {
	Dir, ImportPath, Name string
	GoFiles, CgoFiles     []string
	ImportMap             map[string]string
	DepOnly               bool
	Module                *struct{ GoVersion string }
	Error                 *struct{ Err string }
}

// noFiles is what go list says of a package that is not for the system.
const noFiles = "build constraints exclude all Go files"

// check returns what is wrong with the packages on darwin/arch, and how many there are.
func check(dir, arch string, packages []string) (problems []error, checked int, err error) {
	list, err := goList(dir, arch, packages)
	if err != nil {
		return nil, 0, err
	}
	c := &checker{fset: token.NewFileSet(), arch: arch, done: map[string]*types.Package{"unsafe": types.Unsafe}}
	for _, p := range list { // dependencies come first
		if strings.HasSuffix(p.ImportPath, ".test") || p.ImportPath == "unsafe" {
			continue // go test writes these main packages itself
		}
		if p.Error != nil && !(len(p.GoFiles)+len(p.CgoFiles) == 0 && strings.Contains(p.Error.Err, noFiles)) {
			problems = append(problems, fmt.Errorf("%s: %s", p.ImportPath, p.Error.Err))
		}
		if len(p.GoFiles)+len(p.CgoFiles) == 0 {
			continue
		}
		found := c.check(p)
		if !p.DepOnly {
			problems = append(problems, found...)
			checked++
		}
	}
	if checked == 0 && len(problems) == 0 {
		return nil, 0, errors.New("there is no package to check")
	}
	return problems, checked, nil
}

// goList lists the packages, their tests, and all that they import. It does not run cgo.
func goList(dir, arch string, packages []string) ([]*listed, error) {
	args := []string{"list", "-e", "-deps", "-test", "-json=Dir,ImportPath,Name,GoFiles,CgoFiles,ImportMap,DepOnly,Module,Error"}
	cmd := exec.Command("go", append(args, packages...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=darwin", "GOARCH="+arch, "CGO_ENABLED=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var list []*listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		p := &listed{}
		if err := d.Decode(p); err == io.EOF {
			return list, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		list = append(list, p)
	}
}

// checker checks packages one after the other, dependencies first.
type checker struct {
	fset *token.FileSet
	arch string
	done map[string]*types.Package // by import path
}

// importer finds a package's imports among those that were checked.
type importer struct {
	*checker
	renamed map[string]string
}

func (i importer) Import(path string) (*types.Package, error) {
	if to, ok := i.renamed[path]; ok {
		path = to
	}
	if p := i.done[path]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("package %s does not exist on this system", path)
}

func (c *checker) check(p *listed) (problems []error) {
	var files []*ast.File
	mode := parser.SkipObjectResolution
	for _, name := range append(p.GoFiles, p.CgoFiles...) {
		if !filepath.IsAbs(name) {
			name = filepath.Join(p.Dir, name)
		}
		f, err := parser.ParseFile(c.fset, name, nil, mode)
		if err != nil {
			problems = append(problems, err)
		}
		if f != nil {
			files = append(files, f)
		}
	}
	conf := types.Config{
		FakeImportC: true,
		Importer:    importer{c, p.ImportMap},
		Sizes:       types.SizesFor("gc", c.arch),
		// A dependency's signatures are enough.
		IgnoreFuncBodies: p.DepOnly,
		Error:            func(err error) { problems = append(problems, err) },
	}
	if p.Module != nil && p.Module.GoVersion != "" {
		conf.GoVersion = "go" + p.Module.GoVersion
	}
	path, _, _ := strings.Cut(p.ImportPath, " ") // "a [a.test]" is a with its tests
	pkg, _ := conf.Check(path, c.fset, files, nil)
	c.done[p.ImportPath] = pkg
	return problems
}
