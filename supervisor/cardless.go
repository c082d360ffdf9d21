package supervisor

import (
	"context"
	"fmt"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/virtionet"
)

// cardless tells whether the guest has to make its network card itself.
func (s *supervisor) cardless() bool {
	_, ok := s.Driver.(hypervisor.Cardless)
	return ok || s.Cardless
}

// serveCard listens for the stream that the guest opens for the frames of its own card. It
// takes the first one alone, which comes before any distro runs: a later one could be
// anybody's. The network ends with the VM.
func (s *supervisor) serveCard(ctx context.Context, vm hypervisor.VM, network Network) error {
	ln, err := vm.Listen(ctx, guest.CardPort)
	if err != nil {
		return fmt.Errorf("listen for the guest's network card: %w", err)
	}
	life, end := context.WithCancel(context.Background())
	go func() {
		vm.Wait()
		end()
		ln.Close()
	}()
	go func() {
		conn, err := ln.Accept()
		ln.Close()
		if err != nil {
			return // the VM has ended
		}
		defer conn.Close()
		if err := network.Serve(life, conn, virtionet.Stream); life.Err() == nil {
			s.log.Error("the network of the VM has failed; it is cut off", "err", err)
		}
	}()
	return nil
}
