package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/lsub/lsub/atomicfile"
	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images"
	"github.com/lsub/lsub/machine"
)

func (a *app) exportCommand() *cli.Command {
	return &cli.Command{
		Name:  "export",
		Usage: "write the files of a distro to an archive, or as a container image",
		UsageText: "lsub export [--format FORMAT] [--snapshot NAME] DISTRO FILE|-\nlsub export --format oci DISTRO FILE.tar|FOLDER\n" +
			"lsub export [--insecure] DISTRO oci:REGISTRY/REPOSITORY:TAG",
		Description: "A distro that runs is exported as it is at this moment. FORMAT is " + formatNames() + "; where it is not given, FILE's ending says it, " +
			"and stdout (-) gets a plain tar archive. 'lsub install --from-file' makes a distro of each of them. With oci, the distro becomes a container image " +
			"that docker, podman and Kubernetes run: an OCI layout in an archive or a new folder, or in a registry, with the credentials of docker or podman. " +
			"FILE is there only when it is whole; one that is there already is replaced.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Usage: "write `FORMAT`: " + formatNames()},
			&cli.StringFlag{Name: "snapshot", Aliases: []string{"s"}, Usage: "export the distro's snapshot `NAME`"},
			insecureFlag,
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return badUsage("lsub export", "export needs the name of a distro, and the file to write or '-'")
			}
			to, err := a.destination(c.Args().Get(1), images.Format(c.String("format")))
			if err == nil && c.Bool(insecureFlag.Name) {
				to.ref, err = to.ref.AllowInsecure()
			}
			if err != nil {
				return err
			}
			reg, err := a.machine.Registry()
			if err != nil {
				return err
			}
			d, err := reg.Find(c.Args().First())
			if err != nil {
				return err
			}
			req, err := exportRequest(d, c.String("snapshot"), c.IsSet("snapshot"))
			if err != nil {
				return err
			}
			return a.export(c.Context, d, req, to)
		},
	}
}

func formatNames() string {
	var names []string
	for _, f := range images.Formats {
		names = append(names, string(f))
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// destination is where an export goes.
type destination struct {
	path   string // of the file or folder; "" for stdout
	format images.Format
	folder bool       // an OCI layout as a folder
	ref    images.Ref // in a registry, where Source is set
}

// destination reads where an export is to go, and refuses what cannot be before
// anything is started.
func (a *app) destination(to string, format images.Format) (destination, error) {
	bad := func(text, advice string, args ...any) (destination, error) {
		return destination{}, hint.New(fmt.Errorf(text, args...), advice)
	}
	if format != "" && !slices.Contains(images.Formats, format) {
		return bad("unknown format %q", "it is "+formatNames(), string(format))
	}
	if text, ok := strings.CutPrefix(to, "oci:"); ok {
		if format != "" && format != images.FormatOCI {
			return bad("a registry takes no %s", "leave --format out", format)
		}
		ref, err := images.PushRef(text)
		return destination{ref: ref, format: images.FormatOCI}, err
	}
	switch {
	case to == "-" && format == "":
		format = images.FormatTar
	case to == "-" && format == images.FormatOCI:
		return bad("an OCI layout does not go to stdout", "give a file or a folder")
	case to == "":
		return bad("the name of the file is empty", "see 'lsub export --help'")
	case format == "":
		if format = images.FormatOf(to); format == "" {
			return bad("the name %s does not say what format to write", "give --format: it is "+formatNames(), to)
		}
	}
	if to == "-" {
		if out, ok := a.stdout.(*os.File); ok && term.IsTerminal(int(out.Fd())) {
			return bad("an archive is not for a terminal", "give a file, or direct the output to one with '>'")
		}
		return destination{format: format}, nil
	}
	if ending := images.FormatOf(to); format == images.FormatOCI && ending != "" && ending != images.FormatTar {
		return bad("an OCI layout is no %s", "choose the name of a new folder, or of a file that ends with .tar", ending)
	}
	path, err := filepath.Abs(to)
	if err != nil {
		return destination{}, err
	}
	d := destination{path: path, format: format, folder: format == images.FormatOCI && images.FormatOf(to) == ""}
	info, err := os.Stat(path)
	switch {
	case err == nil && d.folder:
		return bad("%s is there already", "choose the name of a new folder, or of a file that ends with .tar", to)
	case err == nil && info.IsDir():
		return bad("%s is a folder", "give the name of a file in it", to)
	case err == nil && info.Mode()&fs.ModeType == fs.ModeDevice:
		return bad("%s is a disk, which an archive would overwrite", "give the name of a file", to)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return destination{}, err
	}
	if info, err := os.Stat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
		return bad("there is no folder %s", "make it, or check the path", filepath.Dir(to))
	} else if err != nil {
		return destination{}, err
	} else if !info.IsDir() {
		return bad("%s is no folder", "check the path", filepath.Dir(to))
	}
	return d, nil
}

// exportRequest asks the guest for a distro's files, or for those of a snapshot.
func exportRequest(d *machine.Distro, snapshot string, ofSnapshot bool) (*guestv1.Export, error) {
	if !ofSnapshot {
		return &guestv1.Export{From: &guestv1.Export_Distro{Distro: d.ID}}, nil
	}
	s, err := d.FindSnapshot(snapshot)
	if err != nil {
		return nil, err
	}
	return &guestv1.Export{From: &guestv1.Export_Snapshot{Snapshot: &guestv1.Snapshot{Distro: d.ID, Id: s.ID}}}, nil
}

// export writes what req asks for to where it is to go. When it fails, nothing
// is there that was not before.
func (a *app) export(ctx context.Context, d *machine.Distro, req *guestv1.Export, to destination) error {
	p := a.newProgress()
	defer p.end()
	if err := a.machine.Start(ctx); err != nil {
		return err
	}
	var warnings strings.Builder
	read := func(w io.Writer) error { return a.readExport(ctx, d.Name, req, p, w, &warnings) }
	about := images.About{Name: d.Name, Arch: runtime.GOARCH, Created: time.Now().UTC().Truncate(time.Second), Version: a.version}
	var err error
	switch {
	case to.ref.Source != "":
		err = images.Push(ctx, to.ref, a.paths.Cache, about, p.step, read)
	case to.path == "":
		err = images.Compress(ctx, a.stdout, to.format, read)
	case to.folder:
		err = atomicfile.ReplaceTree(to.path, func(tmp string) error {
			if err := os.Remove(tmp); err != nil {
				return err
			}
			return images.LayoutDir(tmp, about, read)
		})
	case to.format == images.FormatOCI:
		err = atomicfile.Replace(to.path, func(f *os.File) error { return images.LayoutArchive(f, about, read) })
	default:
		err = atomicfile.Replace(to.path, func(f *os.File) error { return images.Compress(ctx, f, to.format, read) })
	}
	p.end()
	if err != nil {
		return exportFailed(ctx, d.Name, to, err)
	}
	for line := range strings.Lines(warnings.String()) {
		a.note("warning", strings.TrimSuffix(line, "\n"))
	}
	return nil
}

// exportFailed says what failed.
func exportFailed(ctx context.Context, name string, to destination, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return errors.New("interrupted")
	}
	err = fmt.Errorf("export %s: %w", name, err)
	if errors.Is(err, syscall.ENOSPC) && to.path != "" {
		return hint.New(err, "free some space on the disk that holds "+filepath.Dir(to.path)+", or write elsewhere")
	}
	return err
}

// readExport reads the plain archive from the guest.
func (a *app) readExport(ctx context.Context, name string, req *guestv1.Export, p *progress, w, warnings io.Writer) error {
	count := &counter{step: images.Step{Text: "exporting " + name, Bytes: true}, report: p.step}
	p.step(count.step)
	return a.client().Export(ctx, req, guest.Stdio{
		Stdout: io.MultiWriter(w, count), Stderr: warnings,
		Started: func(m *guestv1.Started) { count.step.Total = int64(m.Bytes) },
	})
}
