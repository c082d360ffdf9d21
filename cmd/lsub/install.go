package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images"
	"github.com/lsub/lsub/machine"
)

// insecureFlag is for the commands that speak with registries.
var insecureFlag = &cli.BoolFlag{Name: "insecure", Usage: "let a registry on this host speak plain http, or have any certificate"}

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
			&cli.StringFlag{Name: "arch", Usage: "the image for processors of the kind `ARCH`: " + strings.Join(images.Arches(), ", ")},
			&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "make the account `USER`, and make it the default user; root for none"},
			insecureFlag,
		},
		Action: func(c *cli.Context) error {
			o := distro.InstallOptions{Name: c.String("name"), User: c.String("user")}
			err := a.chooseImage(c, &o)
			if err == nil && c.Bool(insecureFlag.Name) {
				o.Image, err = o.Image.AllowInsecure()
			}
			if err != nil {
				return err
			}
			if o.Archive != nil && !c.IsSet("name") {
				return badUsage("lsub install", "an archive on stdin needs --name")
			}
			if c.IsSet("name") {
				if err := machine.CheckName("distro", o.Name); err != nil {
					return err
				}
			}
			d, err := a.install(c.Context, o)
			if err != nil {
				return err
			}
			a.status.clear()
			fmt.Fprintf(a.stdout, "%s is installed; start it with 'lsub -d %s'\n", d.Name, d.Name)
			return nil
		},
	}
}

// chooseImage has o install the image that the command line names.
func (a *app) chooseImage(c *cli.Context, o *distro.InstallOptions) (err error) {
	args, file, sha256, arch := c.Args().Slice(), c.String("from-file"), c.String("sha256"), c.String("arch")
	if arch != "" && !slices.Contains(images.Arches(), arch) {
		return hint.New(fmt.Errorf("unknown architecture %q", arch), "known are "+strings.Join(images.Arches(), ", "))
	}
	defer func() {
		if arch != "" {
			o.Image.Arch = arch
		}
	}()
	switch {
	case sha256 != "" && (len(args) != 1 || file != "" || !strings.Contains(args[0], "://")):
		return badUsage("lsub install", "--sha256 is for an https address")
	case len(args) > 1:
		return badUsage("lsub install", "install takes one image")
	case len(args) == 1 && file != "":
		return badUsage("lsub install", "install takes an image or --from-file, not both")
	case file != "":
		return a.fromFile(o, file)
	case len(args) == 1 && strings.Contains(args[0], "://"):
		o.Image, err = images.URLRef(args[0], sha256)
	case len(args) == 1:
		o.Image, err = a.distros.Resolve(c.Context, args[0], arch)
	default:
		o.Image, err = a.distros.Resolve(c.Context, "debian", arch)
	}
	return err
}

// installed returns the distro that a name means, and installs it where it is missing.
func (a *app) installed(ctx context.Context, name string, insecure bool) (*machine.Distro, error) {
	d, image, err := a.distros.Lookup(ctx, name, distro.LookupOptions{Insecure: insecure})
	if err != nil || d != nil {
		return d, err
	}
	return a.install(ctx, distro.InstallOptions{Image: image})
}

// install installs an image, and shows how far it is.
func (a *app) install(ctx context.Context, o distro.InstallOptions) (*machine.Distro, error) {
	if o.Archive == a.stdin && term.IsTerminal(int(a.stdin.Fd())) {
		return nil, hint.New(errors.New("stdin is a terminal, not an archive"), "pipe one into it, as in 'docker export CONTAINER | lsub import NAME -'")
	}
	p := a.newProgress()
	defer p.end()
	return a.distros.Install(ctx, o)
}
