package main

import (
	"errors"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images"
)

func (a *app) exportCommand() *cli.Command {
	return &cli.Command{
		Name:  "export",
		Usage: "write the files of a distro to an archive, or as a container image",
		UsageText: "lsub export [--format FORMAT] [--snapshot NAME] DISTRO FILE|-\nlsub export --format oci DISTRO FILE.tar|FOLDER\n" +
			"lsub export [--insecure] DISTRO oci:REGISTRY/REPOSITORY:TAG",
		Description: "A distro that runs is exported as it is at this moment. FORMAT is " + distro.FormatNames() + "; where it is not given, FILE's ending says it, " +
			"and stdout (-) gets a plain tar archive. 'lsub install --from-file' makes a distro of each of them. With oci, the distro becomes a container image " +
			"that docker, podman and Kubernetes run: an OCI layout in an archive or a new folder, or in a registry, with the credentials of docker or podman. " +
			"FILE is there only when it is whole; one that is there already is replaced.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Usage: "write `FORMAT`: " + distro.FormatNames()},
			&cli.StringFlag{Name: "snapshot", Aliases: []string{"s"}, Usage: "export the distro's snapshot `NAME`"},
			insecureFlag,
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return badUsage("lsub export", "export needs the name of a distro, and the file to write or '-'")
			}
			to, err := a.destination(c.Args().Get(1), images.Format(c.String("format")), c.Bool(insecureFlag.Name))
			if err != nil {
				return err
			}
			d, err := a.named(c.Args().First())
			if err != nil {
				return err
			}
			if c.IsSet("snapshot") && c.String("snapshot") == "" {
				_, err := d.FindSnapshot("")
				return err
			}
			p := a.newProgress()
			defer p.end()
			return a.distros.Export(c.Context, d, distro.ExportOptions{To: to, Snapshot: c.String("snapshot")})
		},
	}
}

// destination reads where an export is to go.
func (a *app) destination(to string, format images.Format, insecure bool) (d distro.Destination, err error) {
	registry, isRegistry := strings.CutPrefix(to, "oci:")
	switch {
	case isRegistry:
		return distro.ToRegistry(registry, format, distro.RegistryOptions{Insecure: insecure})
	case to == "-":
		d, err = distro.ToWriter(a.stdout, format)
		if out, ok := a.stdout.(*os.File); err == nil && ok && term.IsTerminal(int(out.Fd())) {
			err = hint.New(errors.New("an archive is not for a terminal"), "give a file, or direct the output to one with '>'")
		}
	default:
		d, err = distro.ToFile(to, format)
	}
	if err == nil && insecure {
		_, err = images.Ref{}.AllowInsecure() // says what it is for
	}
	return d, err
}
