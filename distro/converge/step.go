package converge

import (
	"context"
	_ "embed" // the script below
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/printable"
	"github.com/lsub/lsub/profile"
)

//go:embed step.sh
var stepScript string

// isMark is what marks are called: they are words of scripts.
var isMark = regexp.MustCompile(`^(step|boot|ready|file)-[0-9a-f]{40}$|^package-[A-Za-z0-9@][A-Za-z0-9+._:@-]{0,127}$`)

func packageMark(name string) string { return "package-" + name }
func fileMark(path string) string    { return "file-" + sumOf([]byte(path))[:40] }

// stepMark is the mark of a step: of what it does, and of its place among those that do the
// same. A step that has a guard leaves none, but at a start: the guard knows.
func (o *one) stepMark(i int, s profile.Step) string {
	if guarded(s) {
		return ""
	}
	same := 0
	for _, before := range o.has.steps[:i] {
		if before.sum == o.has.steps[i].sum {
			same++
		}
	}
	prefix := "step"
	if s.Mode == profile.StepBoot || s.Mode == profile.StepReady {
		prefix = string(s.Mode)
	}
	return prefix + "-" + sumOf([]byte(o.has.steps[i].sum), []byte{byte(same)})[:40]
}

// steps runs those of some modes that have not been run.
func (o *one) steps(ctx context.Context, root, home *state, modes ...profile.StepMode) error {
	for i, s := range o.want.Provision {
		if !slices.Contains(modes, s.Mode) {
			continue
		}
		known := root
		if s.Mode == profile.StepUser {
			known = home
		}
		mark := o.stepMark(i, s)
		if _, done := known.marks[mark]; done && mark != "" {
			continue
		}
		// What a guard looks at may have been changed by what came before.
		if known.guards[i] && (o.o.DryRun || o.result.Changes == o.done) {
			continue
		}
		if o.o.DryRun {
			o.change(KindStep, s.Name, "", nil)
			continue
		}
		if err := o.step(ctx, s, o.has.steps[i].data, mark); err != nil {
			return err
		}
	}
	return nil
}

// step runs a step, unless the distro finds that there is nothing to do.
func (o *one) step(ctx context.Context, s profile.Step, script []byte, mark string) error {
	dir, user, login := rootMarks, "root", false
	switch s.Mode {
	case profile.StepUser:
		dir, user, login = userMarks, "", true
	case profile.StepBoot, profile.StepReady:
		dir = startMarks
	}
	e := Event{Type: Begin, Distro: o.name, Kind: KindStep, Name: s.Name}
	ran := false
	err := o.run(ctx, command{
		kind: KindStep, name: s.Name, at: s.At, timeout: s.Timeout,
		first: func(line string) bool {
			if line == "lsub-step: run" {
				ran = true
				o.tell(e)
			}
			return ran || line == "lsub-step: skip" // a login may say something before
		},
		Command: distro.Command{
			Argv: []string{"/bin/sh", "-c", stepScript, "lsub-step", dir, mark}, User: user, LoginShell: login,
			Env: []string{
				"LSUB_STEP=" + s.Name, fmt.Sprintf("LSUB_SIZE=%d", len(script)),
				"LSUB_CREATES=" + s.Creates, "LSUB_UNLESS=" + s.Unless,
			},
			Stdin: strings.NewReader(string(script)),
		},
	})
	if !ran || err != nil {
		return err
	}
	o.result.Changes++
	e.Type = Done
	o.tell(e)
	return nil
}

// command is a command of ours in a distro, and how its end is told of.
type command struct {
	distro.Command
	kind     Kind
	name, at string
	timeout  time.Duration          // 0 for none
	first    func(line string) bool // takes a line of stdout that is no output, once; may be nil
}

// killAfter is how long a command has that is asked to end.
const killAfter = 10 * time.Second

// maxLast is how many of the last lines an error has.
const maxLast = 10

// run runs a command in the distro, and tells of its lines.
func (o *one) run(ctx context.Context, c command) error {
	out := newLines(func(line string) {
		o.tell(Event{Type: Output, Distro: o.name, Kind: c.kind, Name: c.name, Text: line})
	})
	c.Stdout, c.Stderr = out.stream(c.first), out.stream(nil)
	end := c.limit()
	exit, err := o.cfg.Service.Exec(ctx, &o.info.Distro, c.Command)
	late := end()
	if err != nil {
		return err
	}
	out.end()
	if exit.Status() == 0 {
		return nil
	}
	failed := &StepError{Distro: o.name, Kind: c.kind, Name: c.name, At: c.at, Status: exit.Status(), Last: out.last}
	if late {
		failed.After = c.timeout
	}
	return failed
}

// limit has a command be asked to end, and then be killed, when its time is over. end tells
// whether it was.
func (c *command) limit() (end func() (late bool)) {
	if c.timeout == 0 {
		return func() bool { return false }
	}
	signals, ended, late := make(chan int, 2), make(chan struct{}), make(chan bool)
	c.Signals = signals
	go func() {
		select {
		case <-ended:
			late <- false
			return
		case <-time.After(c.timeout):
		}
		signals <- 15
		select {
		case <-ended:
		case <-time.After(killAfter):
			signals <- 9
			<-ended
		}
		late <- true
	}()
	return func() bool {
		close(ended)
		return <-late
	}
}

// lastLines returns the last lines of a text.
func lastLines(text string, n int) []string {
	lines := strings.Split(strings.TrimSpace(printable.Text(text)), "\n")
	return lines[max(0, len(lines)-n):]
}
