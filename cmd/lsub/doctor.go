package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
)

// finding is a requirement as "doctor --json" prints it.
type finding struct {
	Name  string `json:"name"`
	State string `json:"state"` // "ok", "missing", or "optional": missing, and VMs run without it
	Text  string `json:"text"`  // what was found, and what is wrong with it
	Fix   string `json:"fix,omitempty"`
}

func (a *app) doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", Usage: "tell what this machine lacks to run the VM", UsageText: "lsub doctor [--json]",
		Description: "It never starts the VM, and changes nothing. The exit status is 125 where something is missing.",
		Flags:       []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return badUsage("lsub doctor", "doctor takes no arguments")
			}
			return a.doctor(c.Context, c.Bool("json"))
		},
	}
}

func (a *app) doctor(ctx context.Context, asJSON bool) error {
	findings := []finding{}
	missing := 0
	for _, r := range a.requirements(ctx) {
		f := finding{Name: r.Name, State: "ok", Text: r.Found}
		if r.Err != nil {
			f.State, f.Fix = "missing", hint.Of(r.Err)
			if r.Optional {
				f.State = "optional"
			} else {
				missing++
			}
			if f.Text != "" {
				f.Text += "; "
			}
			f.Text += r.Err.Error()
		}
		findings = append(findings, f)
	}
	var err error
	if asJSON {
		err = printJSON(a.stdout, findings)
	} else {
		err = table(a.stdout, doctorRows(findings))
	}
	if err == nil && missing > 0 {
		err = fmt.Errorf("the VM cannot run here: %d of %d requirements are not met", missing, len(findings))
	}
	return err
}

func doctorRows(findings []finding) [][]string {
	var rows [][]string
	for _, f := range findings {
		text := f.Text
		if f.Fix != "" {
			text += ". To mend it: " + f.Fix
		}
		rows = append(rows, []string{f.State, f.Name, text})
	}
	return rows
}

// requirements are those of the driver, and of lsub itself.
func (a *app) requirements(ctx context.Context) []hypervisor.Requirement {
	list := a.driverRequirements(ctx)
	files := hypervisor.Requirement{Name: "guest", Found: "kernel and system of the VM are in this lsub"}
	if _, err := a.guest(ctx, a.paths.Cache); err != nil {
		files.Found, files.Err = "", err
	}
	list = append(list, files)
	if runtime.GOOS == "linux" { // it runs nowhere else
		r := hypervisor.Requirement{Name: "mmdebstrap", Found: "makes images of Debian's suites", Optional: true}
		if !a.bootstraps() {
			r.Found = ""
			r.Err = hint.New(errors.New("images of Debian's suites are downloaded instead of made"),
				"install it with 'sudo apt install mmdebstrap uidmap'")
		}
		list = append(list, r)
	}
	return list
}

func (a *app) driverRequirements(ctx context.Context) []hypervisor.Requirement {
	driver, err := a.driver(a.log)
	if err != nil {
		return []hypervisor.Requirement{{Name: "hypervisor", Err: err}}
	}
	if e, ok := driver.(hypervisor.Examiner); ok {
		return e.Examine(ctx)
	}
	return []hypervisor.Requirement{{Name: "hypervisor", Found: driver.Name(), Err: driver.Check(ctx)}}
}
