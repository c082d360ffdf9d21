//go:build darwin && !cgo

package vz

import (
	"errors"
	"math"

	"github.com/lsub/lsub/hint"
)

// New returns a driver that can only say what is missing: the framework is reached through
// cgo.
func New(opts Options) *Driver { return NewWith(unreachable{}, opts) }

var errNoCgo = hint.New(errors.New("this lsub was built without cgo, so it cannot reach Virtualization.framework"),
	"build it on a Mac with './task build', or with CGO_ENABLED=1")

// unreachable is the framework for a program without cgo.
type unreachable struct{}

// Facts are such that Check is asked.
func (unreachable) Facts() Facts {
	return Facts{Version: minVersion, Supported: true, MaxCPUs: math.MaxInt, MaxMemory: math.MaxInt64}
}

func (unreachable) Check() error { return errNoCgo }

func (unreachable) NewMachine(*Settings) (Machine, error) { return nil, errNoCgo }
