package main

import (
	"fmt"
	"runtime"

	"github.com/urfave/cli/v2"
)

// versionInfo is what "version --json" prints.
type versionInfo struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
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
	v := versionInfo{a.version, runtime.Version(), runtime.GOOS, runtime.GOARCH}
	if asJSON {
		return printJSON(a.stdout, v)
	}
	_, err := fmt.Fprintf(a.stdout, "lsub %s (%s, %s/%s)\n", v.Version, v.Go, v.OS, v.Arch)
	return err
}
