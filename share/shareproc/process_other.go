//go:build !linux

package shareproc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
)

// errUnsupported says that there is no server for this system yet.
var errUnsupported = fmt.Errorf("lsub cannot share folders of this system yet: %w", errors.ErrUnsupported)

// Process stands for the process of a share.
type Process struct{}

// New returns a share that nobody can connect to.
func New(Config) *Process { return &Process{} }

// SetQueues does nothing.
func (p *Process) SetQueues(int) {}

// Connect fails.
func (p *Process) Connect(context.Context, Carrier) (*net.UnixConn, error) {
	return nil, errUnsupported
}

// Start fails.
func (p *Process) Start(context.Context) error { return errUnsupported }

// CancelWaits does nothing.
func (p *Process) CancelWaits() {}

// PID returns 0.
func (p *Process) PID() int { return 0 }

// Close does nothing.
func (p *Process) Close() error { return nil }

// Main fails.
func Main(*slog.Logger) error { return errUnsupported }
