package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/images"
	"github.com/lsub/lsub/images/catalogue"
	"github.com/lsub/lsub/machine"
)

// insecureFlag is for the commands that speak with registries.
var insecureFlag = &cli.BoolFlag{Name: "insecure", Usage: "let a registry on this host speak plain http, or have any certificate"}

// imageOpener gives the source of the images that a reference names.
type imageOpener func(ref images.Ref, cache string, log *slog.Logger) images.Source

func (a *app) installCommand() *cli.Command {
	return &cli.Command{
		Name:      "install",
		Usage:     "install a distro",
		UsageText: "lsub install [--name NAME] [--user USER] [--insecure] [IMAGE]\nlsub install [--name NAME] [--user USER] --from-file FILE\nlsub install [--name NAME] [--user USER] --sha256 HEX https://HOST/PATH",
		Description: "IMAGE is " + strings.Join(images.Names(), ", ") + " ('debian' is the newest stable one; 'debian?include=git,curl' has more packages), " +
			"or a name such as ubuntu, alma, fedora:42 or alpine:3.22 of a catalogue: 'lsub list --online' lists them. " +
			"oci:REGISTRY/REPOSITORY:TAG (or @sha256:DIGEST) is a container image, with the credentials of docker or podman. " +
			"FILE is a root file system as a tar archive, plain or compressed with gzip, xz, zstd or bzip2, or as a squashfs image; " +
			"or a saved container image: an OCI layout or what 'docker save' writes. " +
			"The first distro that is installed becomes the default one.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "name", Aliases: []string{"n"}, Usage: "call the distro `NAME`"},
			&cli.StringFlag{Name: "from-file", Aliases: []string{"f"}, Usage: "install the archive `FILE`; '-' is stdin"},
			&cli.StringFlag{Name: "sha256", Usage: "the archive at an https address has the sum `HEX`"},
			&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "make the account `USER`, and make it the default user; root for none"},
			insecureFlag,
		},
		Action: func(c *cli.Context) error {
			ref, err := a.imageRef(c.Context, c.Args().Slice(), c.String("from-file"), c.String("sha256"))
			if err == nil && c.Bool(insecureFlag.Name) {
				ref, err = ref.AllowInsecure()
			}
			if err != nil {
				return err
			}
			if ref == stdinRef && !c.IsSet("name") {
				return badUsage("lsub install", "an archive on stdin needs --name")
			}
			if c.IsSet("name") {
				if err := machine.CheckName("distro", c.String("name")); err != nil {
					return err
				}
			}
			d, err := a.install(c.Context, ref, installOptions{name: c.String("name"), user: c.String("user")})
			if err != nil {
				return err
			}
			a.status.clear()
			fmt.Fprintf(a.stdout, "%s is installed; start it with 'lsub -d %s'\n", d.Name, d.Name)
			return nil
		},
	}
}

func (a *app) imageRef(ctx context.Context, args []string, file, sha256 string) (images.Ref, error) {
	switch {
	case sha256 != "" && (len(args) != 1 || file != "" || !strings.Contains(args[0], "://")):
		return images.Ref{}, badUsage("lsub install", "--sha256 is for an https address")
	case len(args) > 1:
		return images.Ref{}, badUsage("lsub install", "install takes one image")
	case len(args) == 1 && file != "":
		return images.Ref{}, badUsage("lsub install", "install takes an image or --from-file, not both")
	case file != "":
		return fileRef(file)
	case len(args) == 1 && strings.Contains(args[0], "://"):
		return images.URLRef(args[0], sha256)
	case len(args) == 1:
		return a.imageNamed(ctx, args[0])
	}
	return a.imageNamed(ctx, "debian")
}

// fileRef names the archive in a file, or on stdin for "-".
func fileRef(file string) (images.Ref, error) {
	if file == "-" {
		return stdinRef, nil
	}
	path, err := filepath.Abs(file)
	return images.FileRef(path), err
}

// installed returns the distro that ref means, and installs it where it is missing.
func (a *app) installed(ctx context.Context, ref string, insecure bool) (*machine.Distro, error) {
	reg, err := a.machine.Registry()
	if err != nil {
		return nil, err
	}
	if d, err := reg.Find(ref); err == nil {
		return d, nil
	}
	if catalogue.IsShortName(ref) { // it may be known without asking
		if d := distroOf(reg, images.Ref{Label: ref}); d != nil {
			return d, nil
		}
	}
	image, err := a.imageNamed(ctx, ref)
	if err != nil {
		if near := nearestDistro(reg, ref); near != nil {
			return nil, near
		}
		return nil, err
	}
	if insecure {
		if image, err = image.AllowInsecure(); err != nil {
			return nil, err
		}
	}
	if d := distroOf(reg, image); d != nil {
		return d, nil
	}
	return a.install(ctx, image, installOptions{})
}

// distroOf returns the first distro that was made of an image, or nil. An
// image of a catalogue may have been of another version then.
func distroOf(reg *machine.Registry, image images.Ref) *machine.Distro {
	want, _, _ := strings.Cut(image.Label, "@")
	for i, d := range reg.Distros {
		made, _, labelled := strings.Cut(d.ImageName, "@")
		if d.ImageName == image.String() || want != "" && labelled && catalogue.IsShortName(made) && catalogue.ShortName(made) == catalogue.ShortName(want) {
			return &reg.Distros[i]
		}
	}
	return nil
}

// nearestDistro is the error for a slip in a distro's name, or nil.
func nearestDistro(reg *machine.Registry, name string) error {
	var names []string
	for _, d := range reg.Distros {
		names = append(names, d.Name)
	}
	if nearest(name, names) == "" {
		return nil
	}
	_, err := reg.Find(name)
	return err
}

// installOptions say how an image is installed.
type installOptions struct {
	name string // "" for the image's own
	user string // account to make; "" for what is usual
	// asIs takes the image for a distro that goes on as this one: it keeps the
	// machine id, and runs nothing before the first shell.
	asIs bool
}

// install installs an image as a distro. When it fails, it leaves nothing but
// the image in the caches.
func (a *app) install(ctx context.Context, ref images.Ref, o installOptions) (*machine.Distro, error) {
	reg, err := a.machine.Registry()
	if err != nil {
		return nil, err
	}
	if o.name != "" {
		if err := reg.Available(o.name); err != nil {
			return nil, err
		}
	}
	account, err := accountFor(ref, o.user)
	if err != nil {
		return nil, err
	}
	p := a.newProgress()
	defer p.end()
	if ref == stdinRef {
		var remove func()
		if ref, remove, err = a.spool(ctx, p); err != nil {
			return nil, interrupted(ctx, err)
		}
		defer remove()
	}
	img, err := a.images(ref, a.paths.Cache, a.log).Pull(ctx, ref, p.step)
	if err != nil {
		return nil, interrupted(ctx, err)
	}
	name := cmp.Or(o.name, img.Distro)
	if err := reg.Available(name); err != nil {
		return nil, err
	}
	d := machine.Distro{
		ID: machine.NewID(name), Name: name, Image: img.ID, ImageName: img.Name, Created: time.Now().UTC().Truncate(time.Second),
		User: account.GetName(), UID: account.GetUid(),
	}
	if o.name == "" && ref.Distro == "" && img.Setup.NameWarning != "" {
		a.distroWarnings(name, []string{img.Setup.NameWarning})
	}
	if o.user == "" {
		a.imageWishes(img, &d)
	}
	if o.asIs {
		d.FirstRun = nil
	}
	if err := a.machine.Start(ctx); err != nil {
		return nil, interrupted(ctx, err)
	}
	if err := a.importImage(ctx, img, p); err != nil {
		return nil, interrupted(ctx, fmt.Errorf("install %s: %w", name, err))
	}
	p.stage("creating " + name)
	if err := a.create(ctx, d, &guestv1.CreateDistroRequest{
		From: &guestv1.CreateDistroRequest_Image{Image: d.Image}, User: account, Env: imageEnv(img), KeepIdentity: o.asIs,
	}); err != nil {
		return nil, interrupted(ctx, err)
	}
	return &d, nil
}

// imageEnv is the environment that a container image asks for.
func imageEnv(img *images.Image) (env [][]byte) {
	for _, e := range img.Config.Env {
		env = append(env, []byte(e))
	}
	return env
}

// create makes the distro in the VM and registers it, both or neither.
func (a *app) create(ctx context.Context, d machine.Distro, req *guestv1.CreateDistroRequest) (err error) {
	defer func() {
		if err == nil {
			return
		}
		// Should this fail too, the next start of the VM deletes what is left.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
		defer cancel()
		if err := a.deleteFiles(clean, d.ID); err != nil {
			a.log.Debug("the next start of the VM deletes what is left of the distro", "id", d.ID, "err", err)
		}
	}()
	call, cancel := context.WithTimeout(ctx, distroTimeout)
	defer cancel()
	req.Distro = d.Guest()
	if _, err := a.client().CreateDistro(call, connect.NewRequest(req)); err != nil {
		return err
	}
	return a.machine.Update(ctx, func(r *machine.Registry) error { return r.Add(d) })
}

// importImage brings an image into the VM, unless it is there.
func (a *app) importImage(ctx context.Context, img *images.Image, p *progress) error {
	call, cancel := context.WithTimeout(ctx, distroTimeout)
	defer cancel()
	info, err := a.client().Info(call, connect.NewRequest(&guestv1.InfoRequest{}))
	if err != nil {
		return err
	}
	for _, id := range info.Msg.Images {
		if id == img.ID {
			return nil
		}
	}
	r, err := img.Open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	count := &counter{step: images.Step{Text: "unpacking", Total: img.Size, Bytes: true}, report: p.step}
	return a.client().ImportImage(ctx, img.ID, img.Size, io.TeeReader(r, count))
}

// interrupted says that nothing was installed where that is why err came.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return errors.New("interrupted; nothing was installed")
	}
	return err
}
