package main

import (
	"fmt"
	"runtime"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/images/guestimage"
)

// commit is that of the sources, with "+changes" where they differed from it; "" where that is
// not known. The linker sets it: "go build -ldflags '-X main.commit=…'".
var commit string

// versionInfo is what "version --json" prints.
type versionInfo struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	Kernel  string `json:"kernel,omitempty"` // of the embedded guest, as 'uname -r' prints it
	Guest   string `json:"guest,omitempty"`  // its name in the cache
	Suite   string `json:"suite,omitempty"`  // of Debian, which it is made of
}

func (a *app) versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the version", UsageText: "lsub version [--json]",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return badUsage("lsub version", "version takes no arguments")
			}
			return a.printVersion(c.Bool("json"))
		},
	}
}

func (a *app) printVersion(asJSON bool) error {
	v := versionInfo{Version: a.version, Commit: commit, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if name, m, err := guestimage.Embedded(); err == nil { // 'lsub doctor' says what is wrong
		v.Guest, v.Kernel, v.Suite = name, m.Kernel, m.Suite
	}
	if asJSON {
		return printJSON(a.stdout, v)
	}
	_, err := fmt.Fprintf(a.stdout, "lsub %s (%s, %s/%s)\n", v.Version, v.Go, v.OS, v.Arch)
	if err == nil && v.Commit != "" {
		_, err = fmt.Fprintf(a.stdout, "commit %s\n", v.Commit)
	}
	if err == nil && v.Guest != "" {
		_, err = fmt.Fprintf(a.stdout, "kernel %s\nguest  %s, of Debian %s\n", v.Kernel, v.Guest, v.Suite)
	}
	return err
}
