package supervisor

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/lsub/lsub/guest"
)

// Service is a duty of the supervisor while its VM runs.
type Service interface {
	// Name says what the service does, for the log.
	Name() string
	// Run works until ctx is done, or until there is nothing more to do: then it
	// returns nil. After an error the supervisor runs it again.
	Run(ctx context.Context, vm VM) error
}

// VM is the running VM as services see it.
type VM interface {
	guest.Dialer
	// Client calls the guest.
	Client() *guest.Client
	// Paused says why the VM stands still, or nil.
	Paused() error
	// Connect begins a TCP connection to the guest's loopback by the VM's card, without
	// the agent. It does not wait for the answer. Where there is no such way, it fails.
	Connect(at netip.AddrPort) (FastConn, error)
}

// runningVM is the supervisor's own VM.
type runningVM struct {
	guest.Dialer
	s *supervisor
}

func (v runningVM) Client() *guest.Client { return guest.NewClient(v.s.vm, v.s.Version) }
func (v runningVM) Paused() error         { return v.s.paused() }
func (v runningVM) Connect(at netip.AddrPort) (FastConn, error) {
	return v.s.vm.Connect(at)
}

// serviceRetry is the time until a service that has failed runs again.
const serviceRetry = time.Second

// runServices runs the services until ctx is done, and returns when all have ended.
func (s *supervisor) runServices(ctx context.Context, services []Service) {
	vm := runningVM{s.vm, s}
	var wg sync.WaitGroup
	for _, service := range services {
		wg.Go(func() {
			for {
				err := service.Run(ctx, vm)
				if err == nil || ctx.Err() != nil {
					return
				}
				if !s.life.isStopping() {
					s.log.Warn("a service of the supervisor has failed; it runs again", "service", service.Name(), "err", err)
				}
				select {
				case <-ctx.Done():
					return
				case <-time.After(serviceRetry):
				}
			}
		})
	}
	wg.Wait()
}
