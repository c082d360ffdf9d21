package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/distro/provision"
	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/printable"
)

// followEvery is how often "logs -f" looks for more. What writes the files is
// another process, and not every file system tells of changes.
const followEvery = 200 * time.Millisecond

func (a *app) logsCommand() *cli.Command {
	return &cli.Command{
		Name: "logs", Usage: "print the VM's console and the supervisor's log, a distro's journal, or what provisioning has done",
		UsageText: "lsub logs [-f] [DISTRO]\nlsub logs --provision [-f] [DISTRO]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "provision", Usage: "print what 'lsub up' and the steps of a start have done, with their output"},
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what comes, until interrupted"},
		},
		Action: func(c *cli.Context) error {
			if c.Bool("provision") {
				return a.provisionLog(c)
			}
			if c.NArg() > 0 {
				return a.journal(c)
			}
			logs := []*logFile{
				{title: "supervisor", path: a.machine.SupervisorLog()}, {title: "console", path: a.machine.ConsoleLog()},
			}
			defer func() {
				for _, l := range logs {
					l.close()
				}
			}()
			return a.printLogs(c.Context, logs, c.Bool("follow"))
		},
	}
}

// provisionLog prints what was done in a distro, or in all.
func (a *app) provisionLog(c *cli.Context) error {
	if c.NArg() > 1 {
		return badUsage("lsub logs", "logs takes one distro")
	}
	path := a.machine.ProvisionLog()
	old := &logFile{path: path + ".old"}
	now := &logFile{path: path}
	defer old.close()
	defer now.close()
	out := &eventLines{w: a.stdout, distro: strings.ToLower(c.Args().First())}
	if err := old.copy(out); err != nil {
		return err
	}
	out.rest = nil // the end of it was cut off
	err := a.follow(c.Context, c.Bool("follow"), func() error { return now.copy(out) })
	if err == nil && !out.some && !c.Bool("follow") {
		a.note("note", "nothing was provisioned")
	}
	return err
}

// eventLines writes the lines of a log of provisioning for people.
type eventLines struct {
	w      io.Writer
	distro string // in small letters; "" for all
	some   bool   // something was written
	rest   []byte
}

func (e *eventLines) Write(p []byte) (int, error) {
	e.rest = append(e.rest, p...)
	for {
		line, rest, ok := bytes.Cut(e.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		e.rest = rest
		text := provision.LogLine(line, e.distro)
		if text == "" {
			continue
		}
		e.some = true
		if _, err := io.WriteString(e.w, text); err != nil {
			return 0, err
		}
	}
}

// printLogs prints what the files hold. With follow it goes on with what is
// appended until lsub is interrupted, which is how one ends it.
func (a *app) printLogs(ctx context.Context, logs []*logFile, follow bool) error {
	var last *logFile // printed last
	out := a.stdout
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		out = printable.Writer(out) // distros write to the console
	}
	print := func() error {
		for _, l := range logs {
			w := &headed{w: out, text: "==> " + l.title + ": " + l.path + "\n", done: l == last}
			if err := l.copy(w); err != nil {
				return err
			}
			if w.done {
				last = l
			}
		}
		return nil
	}
	if err := print(); err != nil {
		return err
	}
	if last == nil {
		a.note("note", "there are no logs: the VM never ran")
	}
	if last == nil {
		return nil
	}
	return a.follow(ctx, follow, print)
}

// follow calls print, and with follow again and again until lsub is interrupted.
func (a *app) follow(ctx context.Context, follow bool, print func() error) error {
	if err := print(); err != nil || !follow {
		return err
	}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			a.code = a.signals.code()
			return nil
		case <-tick.C:
		}
		if err := print(); err != nil {
			return err
		}
	}
}

// headed writes a line before the first bytes.
type headed struct {
	w    io.Writer
	text string
	done bool
}

func (h *headed) Write(p []byte) (int, error) {
	if !h.done {
		if _, err := io.WriteString(h.w, h.text); err != nil {
			return 0, err
		}
		h.done = true
	}
	return h.w.Write(p)
}

// logFile is a log that is put aside, or emptied, at the start of a VM.
type logFile struct {
	title, path string
	f           *os.File // nil while there is none
	read        int64
}

// copy writes what has come since the last call.
func (l *logFile) copy(w io.Writer) error {
	for {
		if l.f != nil {
			if fi, err := l.f.Stat(); err == nil && fi.Size() < l.read { // emptied
				l.f.Seek(0, io.SeekStart)
				l.read = 0
			}
			n, err := io.Copy(w, l.f)
			l.read += n
			if err != nil {
				return err
			}
		}
		now, err := os.Stat(l.path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if l.f != nil {
			if fi, err := l.f.Stat(); err == nil && os.SameFile(fi, now) {
				return nil
			}
			l.close()
		}
		if l.f, err = os.Open(l.path); errors.Is(err, fs.ErrNotExist) {
			l.f = nil
			return nil
		} else if err != nil {
			l.f = nil
			return err
		}
		l.read = 0
	}
}

func (l *logFile) close() {
	if l.f != nil {
		l.f.Close()
		l.f = nil
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
	err = a.exec(c.Context, d, distro.Command{Argv: argv, User: "root"}, nil)
	if guest.ErrorCode(err) == guestv1.ErrorCode_ERROR_CODE_COMMAND_NOT_FOUND {
		return hint.New(fmt.Errorf("%s keeps no journal: it has no journalctl", d.Name),
			"'lsub -d "+d.Name+" -u root ls /var/log' lists the files that it may log to")
	}
	return err
}
