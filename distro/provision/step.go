package provision

import (
	"bytes"
	"context"
	_ "embed" // the script below
	"fmt"
	"strings"

	"github.com/lsub/lsub/profile"
)

//go:embed step.sh
var stepScript string

// The directories of marks in a distro.
const (
	RootMarks  = "/var/lib/lsub/up"
	StartMarks = "/run/lsub-up" // goes with the end of the distro
	UserMarks  = ""             // in the default user's state directory
)

// AtStart tells whether a step runs at each start of the distro.
func AtStart(s profile.Step) bool { return s.Mode == profile.StepBoot || s.Mode == profile.StepReady }

// Guarded tells whether a guard decides if a step is run.
func Guarded(s profile.Step) bool { return s.Creates != "" || s.Unless != "" }

// Marks returns the mark of each step: of what it does, and of its place among those that do
// the same. A step that has a guard has none, "": the guard knows. At a start, the mark says
// that the step has been run since.
func Marks(steps []profile.Step, has []Content) []string {
	marks := make([]string, len(steps))
	same := map[string]byte{}
	for i, s := range steps {
		sum := SumOf([]byte(s.Mode), has[i].Data)
		nth := same[sum]
		same[sum]++
		if Guarded(s) {
			continue
		}
		prefix := "step"
		if AtStart(s) {
			prefix = string(s.Mode)
		}
		marks[i] = prefix + "-" + SumOf([]byte(sum), []byte{nth})[:40]
	}
	return marks
}

// Step runs a step, unless the distro finds that there is nothing to do.
func (r Runner) Step(ctx context.Context, s profile.Step, script []byte, mark string) (ran bool, err error) {
	dir, user, login := RootMarks, "root", false
	switch s.Mode {
	case profile.StepUser:
		dir, user, login = UserMarks, "", true
	case profile.StepBoot, profile.StepReady:
		dir = StartMarks
	}
	e := Event{Type: Begin, Distro: r.Distro, Kind: KindStep, Name: s.Name}
	err = r.Run(ctx, Task{
		Kind: KindStep, Name: s.Name, At: s.At, Timeout: s.Timeout,
		First: func(line string) bool {
			if line == "lsub-step: run" {
				ran = true
				r.Tell(e)
			}
			return ran || line == "lsub-step: skip" // a login may say something before
		},
		Command: Command{
			Argv: []string{"/bin/sh", "-c", stepScript, "lsub-step", dir, mark}, User: user, Login: login,
			Env: []string{
				"LSUB_STEP=" + s.Name, fmt.Sprintf("LSUB_SIZE=%d", len(script)),
				"LSUB_CREATES=" + s.Creates, "LSUB_UNLESS=" + s.Unless,
			},
			Stdin: bytes.NewReader(script),
		},
	})
	if !ran || err != nil {
		return ran, err
	}
	e.Type = Done
	r.Tell(e)
	return true, nil
}

// Steps runs those of a mode in their order, and ends with the first that fails.
func (r Runner) Steps(ctx context.Context, mode profile.StepMode, steps []profile.Step, has []Content) error {
	marks := Marks(steps, has)
	for i, s := range steps {
		if s.Mode != mode {
			continue
		}
		if _, err := r.Step(ctx, s, has[i].Data, marks[i]); err != nil {
			return err
		}
	}
	return nil
}

// HasCRLF tells whether a script has line ends of Windows.
func HasCRLF(script []byte) bool { return strings.Contains(string(script), "\r\n") }
