package distro

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images"
	"github.com/lsub/lsub/machine"
)

// InstallOptions say what is installed, and how. One of Image and Archive is required.
type InstallOptions struct {
	Image images.Ref // as [Service.Resolve] and package images return it
	// Archive is read instead of an image: an archive of any form that Image may be a
	// file of. Its Read may go on in a goroutine after the end of the context.
	Archive io.Reader

	Name string // of the distro; "" is the image's own, which an Archive has none of
	// User is the account to make, which becomes the default user; "root" makes none.
	// "" makes one for the host's user in a Debian suite, and leaves it to other images.
	User string
	// Import takes the image for a distro that goes on as this one: it keeps the machine
	// id, and runs nothing before the first shell.
	Import bool

	Up        *machine.Up // what 'lsub up' notes of the distro
	Ephemeral bool        // see [Service.Once]
}

// Install makes a distro of an image. The first one becomes the default distro. When it
// fails or is interrupted, it leaves nothing but the image in the caches.
func (s *Service) Install(ctx context.Context, o InstallOptions) (*machine.Distro, error) {
	d, err := s.install(ctx, o)
	if err != nil {
		return nil, interrupted(ctx, err, "interrupted; nothing was installed")
	}
	return d, nil
}

func (s *Service) install(ctx context.Context, o InstallOptions) (*machine.Distro, error) {
	defer s.done()
	reg, err := s.machine.Registry()
	if err != nil {
		return nil, err
	}
	if o.Name != "" {
		if err := reg.Available(o.Name); err != nil {
			return nil, err
		}
	}
	o.Image.Arch = cmp.Or(o.Image.Arch, s.cfg.Arch)
	account, err := accountFor(o.Image, o.User)
	if err != nil {
		return nil, err
	}
	ref := o.Image
	foreign := ""
	if o.Image.Arch != s.cfg.Arch {
		foreign = o.Image.Arch
		if err := s.checkEmulated(ctx, foreign); err != nil {
			return nil, err
		}
	}
	if o.Archive != nil {
		var remove func()
		if ref, remove, err = images.Spool(ctx, s.cfg.Paths.Cache, "stdin", o.Archive, s.imageProgress); err != nil {
			return nil, err
		}
		ref.Arch = o.Image.Arch
		defer remove()
	}
	img, err := s.cfg.Images(ref).Pull(ctx, ref, s.imageProgress)
	if err != nil {
		return nil, err
	}
	if foreign != "" {
		img.Distro += "-" + foreign
	}
	name := cmp.Or(o.Name, img.Distro)
	if err := reg.Available(name); err != nil {
		return nil, err
	}
	d := machine.Distro{
		ID: machine.NewID(name), Name: name, Image: img.ID, ImageName: img.Name, Arch: foreign, Created: now(),
		User: account.GetName(), UID: account.GetUid(), Up: o.Up, Ephemeral: o.Ephemeral,
	}
	if o.Name == "" && ref.Distro == "" && img.Setup.NameWarning != "" {
		s.warnOf(name, []string{img.Setup.NameWarning})
	}
	if o.User == "" {
		s.imageWishes(img, &d)
	}
	if o.Import || o.Ephemeral {
		d.FirstRun = nil
	}
	if err := s.machine.Start(ctx); err != nil {
		return nil, err
	}
	if err := s.importImage(ctx, img); err != nil {
		return nil, fmt.Errorf("install %s: %w", name, err)
	}
	s.events.Progress(Step{Text: "creating " + name})
	req := &guestv1.CreateDistroRequest{
		From: &guestv1.CreateDistroRequest_Image{Image: d.Image}, User: account, KeepIdentity: o.Import,
	}
	for _, e := range img.Config.Env { // that a container image asks for
		req.Env = append(req.Env, []byte(e))
	}
	if err := s.create(ctx, d, req); err != nil {
		return nil, s.machine.Explain(ctx, err)
	}
	return &d, nil
}

// checkEmulated returns an error unless programs for an architecture that is not the VM's run
// in the VM.
func (s *Service) checkEmulated(ctx context.Context, arch string) error {
	call, cancel := context.WithTimeout(ctx, distroTimeout) // the VM may have to start
	defer cancel()
	info, err := s.client().Info(call, connect.NewRequest(&guestv1.InfoRequest{}))
	switch {
	case err != nil:
		return s.machine.Explain(ctx, err)
	case slices.Contains(info.Msg.Arches, arch):
		return nil
	}
	return hint.New(fmt.Errorf("programs for %s do not run in the VM, whose processor is one for %s", arch, s.cfg.Arch), guest.EmulatorAdvice)
}

// now is the time as the registry keeps it.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// create makes the distro in the VM and registers it, both or neither.
func (s *Service) create(ctx context.Context, d machine.Distro, req *guestv1.CreateDistroRequest) (err error) {
	defer func() {
		if err == nil {
			return
		}
		// If this fails too, the next start of the VM deletes what is left.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
		defer cancel()
		s.machine.Update(clean, func(r *machine.Registry) error { r.SetRemoved(d.ID); return nil })
		if err := s.deleteFiles(clean, d.ID); err != nil {
			s.log.Debug("the next start of the VM deletes what is left of the distro", "id", d.ID, "err", err)
		}
	}()
	call, cancel := context.WithTimeout(ctx, distroTimeout)
	defer cancel()
	req.Distro = d.Guest()
	if _, err := s.client().CreateDistro(call, connect.NewRequest(req)); err != nil {
		return err
	}
	return s.machine.Update(ctx, func(r *machine.Registry) error { return r.Add(d) })
}

// importImage brings an image into the VM, unless it is there.
func (s *Service) importImage(ctx context.Context, img *images.Image) error {
	call, cancel := context.WithTimeout(ctx, distroTimeout)
	defer cancel()
	info, err := s.client().Info(call, connect.NewRequest(&guestv1.InfoRequest{}))
	if err != nil {
		return s.machine.Explain(ctx, err)
	}
	if slices.Contains(info.Msg.Images, img.ID) {
		return nil
	}
	r, err := img.Open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	count := &counter{step: Step{Text: "unpacking", Total: img.Size, Bytes: true}, report: s.events.Progress}
	return s.client().ImportImage(ctx, img.ID, img.Size, io.TeeReader(r, count))
}

// CloneOptions say what a clone is made of, and its name.
type CloneOptions struct {
	Name     string // of the clone
	Snapshot string // name of the snapshot to copy; "" copies the distro as it is now

	Ephemeral bool // see [Service.Once]
}

// Clone copies a distro at once, whatever its size. The copy has the settings and the
// default user of the first, a machine id of its own, and neither snapshots nor autostart.
// When it fails, there is no copy.
func (s *Service) Clone(ctx context.Context, from *machine.Distro, o CloneOptions) (_ *machine.Distro, err error) {
	defer s.explain(ctx, &err)
	reg, err := s.machine.Registry()
	if err != nil {
		return nil, err
	}
	if err := reg.Available(o.Name); err != nil {
		return nil, err
	}
	req := &guestv1.CreateDistroRequest{From: &guestv1.CreateDistroRequest_Clone{Clone: from.ID}}
	if o.Snapshot != "" {
		snap, err := from.FindSnapshot(o.Snapshot)
		if err != nil {
			return nil, err
		}
		req.From = &guestv1.CreateDistroRequest_Snapshot{Snapshot: &guestv1.Snapshot{Distro: from.ID, Id: snap.ID}}
	}
	d := *from
	d.ID, d.Name, d.Created = machine.NewID(o.Name), o.Name, now()
	d.Snapshots, d.Autostart, d.Up, d.Ephemeral = nil, false, nil, o.Ephemeral
	if d.Ephemeral {
		d.FirstRun = nil // its shell is no first one
	}
	if err := s.machine.Start(ctx); err != nil {
		return nil, err
	}
	defer s.step("copying " + from.Name)()
	if err := s.create(ctx, d, req); err != nil {
		return nil, err
	}
	return &d, nil
}
