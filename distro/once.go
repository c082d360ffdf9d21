package distro

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"time"

	"github.com/lsub/lsub/filelock"
	"github.com/lsub/lsub/images"
	"github.com/lsub/lsub/machine"
)

// OnceOptions say what [Service.Once] makes a distro of: a copy of From, or else of Image.
type OnceOptions struct {
	From  *machine.Distro
	Image images.Ref
}

// Once makes a distro for one command. end removes it with its files, and must be called. A
// distro whose process was killed is removed when the VM starts next, or by the next Once.
func (s *Service) Once(ctx context.Context, o OnceOptions) (_ *machine.Distro, end func(), err error) {
	if err := s.machine.MakeDir(); err != nil {
		return nil, nil, err
	}
	s.removeOnce(ctx)
	base := "once"
	if o.From != nil {
		base = o.From.Name
	}
	var random [4]byte
	rand.Read(random[:])
	name := base[:min(len(base), 50)] + "-" + hex.EncodeToString(random[:])
	// From before it is registered, the lock says that somebody uses the distro.
	lock, err := filelock.TryAcquire(s.onceLock(name))
	if err != nil {
		return nil, nil, err
	}
	release := func() {
		os.Remove(s.onceLock(name))
		lock.Release()
	}
	var d *machine.Distro
	if o.From != nil {
		d, err = s.Clone(ctx, o.From, CloneOptions{Name: name, Ephemeral: true})
	} else {
		d, err = s.Install(ctx, InstallOptions{Image: o.Image, Name: name, Ephemeral: true})
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	return d, func() {
		defer release()
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
		defer cancel()
		s.unregisterOnce(clean, d)
	}, nil
}

// onceLock is the file whose lock the process has that a distro was made for.
func (s *Service) onceLock(name string) string {
	return filepath.Join(s.machine.Dir(), "once-"+name+".lock")
}

// removeOnce removes the distros of processes that were killed.
func (s *Service) removeOnce(ctx context.Context) {
	reg, err := s.machine.Registry()
	if err != nil {
		return // what comes next says so
	}
	for _, d := range reg.Distros {
		if !d.Ephemeral {
			continue
		}
		lock, err := filelock.TryAcquire(s.onceLock(d.Name))
		if err != nil {
			continue // its process lives
		}
		s.unregisterOnce(ctx, &d)
		os.Remove(s.onceLock(d.Name))
		lock.Release()
	}
}

func (s *Service) unregisterOnce(ctx context.Context, d *machine.Distro) {
	begin := time.Now()
	if err := s.Unregister(ctx, d); err != nil {
		s.log.Warn("the next start of the VM deletes what is left of a distro", "id", d.ID, "err", err, "after", time.Since(begin))
	}
}
