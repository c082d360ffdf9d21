package distro

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/lsub/lsub/atomicfile"
	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images"
	"github.com/lsub/lsub/machine"
)

// ExportOptions say what is exported, and where to.
type ExportOptions struct {
	To       Destination
	Snapshot string // name of the snapshot to export; "" exports the distro as it is now
}

// Export writes the files of a distro to an archive, or as a container image. A distro
// that runs is exported as it is at this moment. When it fails or is interrupted, nothing
// is at the destination that was not there before, except in a writer.
func (s *Service) Export(ctx context.Context, d *machine.Distro, o ExportOptions) error {
	req := &guestv1.Export{From: &guestv1.Export_Distro{Distro: d.ID}}
	if o.Snapshot != "" {
		snap, err := d.FindSnapshot(o.Snapshot)
		if err != nil {
			return err
		}
		req.From = &guestv1.Export_Snapshot{Snapshot: &guestv1.Snapshot{Distro: d.ID, Id: snap.ID}}
	}
	if err := s.machine.Start(ctx); err != nil {
		return err
	}
	var warnings strings.Builder
	read := func(w io.Writer) error { return s.readExport(ctx, d.Name, req, w, &warnings) }
	err := s.write(ctx, d, o.To, read)
	s.done()
	if err != nil {
		return exportFailed(ctx, d.Name, o.To, err)
	}
	for line := range strings.Lines(warnings.String()) {
		s.events.Warn(strings.TrimSuffix(line, "\n"))
	}
	return nil
}

// write writes to a destination what read writes to it as a plain archive.
func (s *Service) write(ctx context.Context, d *machine.Distro, to Destination, read func(io.Writer) error) error {
	about := images.About{Name: d.Name, Arch: cmp.Or(d.Arch, s.cfg.Arch), Created: now(), Version: s.cfg.Version}
	switch {
	case to.ref.Source != "":
		return images.Push(ctx, to.ref, s.cfg.Paths.Cache, about, s.imageProgress, read)
	case to.w != nil:
		return images.Compress(ctx, to.w, to.format, read)
	case to.layoutDir:
		return atomicfile.ReplaceTree(to.path, func(tmp string) error {
			if err := os.Remove(tmp); err != nil {
				return err
			}
			return images.LayoutDir(tmp, about, read)
		})
	case to.format == images.FormatOCI:
		return atomicfile.Replace(to.path, func(f *os.File) error { return images.LayoutArchive(f, about, read) })
	}
	return atomicfile.Replace(to.path, func(f *os.File) error { return images.Compress(ctx, f, to.format, read) })
}

// exportFailed says what failed.
func exportFailed(ctx context.Context, name string, to Destination, err error) error {
	if cut := interrupted(ctx, err, "interrupted"); cut != err {
		return cut
	}
	err = fmt.Errorf("export %s: %w", name, err)
	if errors.Is(err, syscall.ENOSPC) && to.path != "" {
		return hint.New(err, "free some space on the disk that holds "+filepath.Dir(to.path)+", or write elsewhere")
	}
	return err
}

// readExport reads the plain archive from the guest.
func (s *Service) readExport(ctx context.Context, name string, req *guestv1.Export, w, warnings io.Writer) error {
	count := &counter{step: Step{Text: "exporting " + name, Bytes: true}, report: s.events.Progress}
	s.events.Progress(count.step)
	return s.client().Export(ctx, req, guest.Stdio{
		Stdout: io.MultiWriter(w, count), Stderr: warnings,
		Started: func(m *guestv1.Started) { count.step.Total = int64(m.Bytes) },
	})
}
