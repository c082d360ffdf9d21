package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/urfave/cli/v2"
)

// followEvery is how often "logs -f" looks for more. What writes the files is
// another process, and not every file system tells of changes.
const followEvery = 200 * time.Millisecond

func (a *app) logsCommand() *cli.Command {
	return &cli.Command{
		Name: "logs", Usage: "print the VM's console and the supervisor's log, or a distro's journal",
		UsageText: "lsub logs [-f] [DISTRO]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what comes, until interrupted"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return a.journal(c)
			}
			var last io.ReadCloser
			for _, log := range []struct{ title, path string }{
				{"supervisor", a.machine.SupervisorLog()}, {"console", a.machine.ConsoleLog()},
			} {
				f, err := os.Open(log.path)
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err != nil {
					return err
				}
				defer f.Close()
				io.WriteString(a.stdout, "==> "+log.title+": "+log.path+"\n")
				if _, err := io.Copy(a.stdout, f); err != nil {
					return err
				}
				last = f
			}
			switch {
			case last == nil:
				a.note("note", "there are no logs: the VM never ran")
				return nil
			case c.Bool("follow"):
				return a.follow(c.Context, last)
			}
			return nil
		},
	}
}

// follow prints what is appended to a file until lsub is interrupted, which is
// how one ends it.
func (a *app) follow(ctx context.Context, r io.Reader) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		if _, err := io.Copy(a.stdout, r); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			a.code = a.signals.code()
			return nil
		case <-tick.C:
		}
	}
}

// journal prints the log of a distro's own system.
func (a *app) journal(c *cli.Context) error {
	d, err := a.oneDistro(c)
	if err != nil {
		return err
	}
	argv := []string{"journalctl", "--no-pager", "--lines=200"}
	if c.Bool("follow") {
		argv = append(argv, "--follow")
	}
	a.code, err = a.runSession(c.Context, session{distro: *d, argv: argv, user: "root"})
	return err
}
