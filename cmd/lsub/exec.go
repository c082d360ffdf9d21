package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/machine"
)

// shellName is the hidden command that stands for none; see [arrange].
const shellName = "@shell"

func (a *app) shellCommand() *cli.Command {
	return &cli.Command{Name: shellName, Hidden: true, Action: a.shell}
}

// shell opens the login shell, or runs a command through it.
func (a *app) shell(c *cli.Context) error {
	if c.Bool("version") {
		return a.printVersion(false)
	}
	argv, name := c.Args().Slice(), c.String("distro")
	d, err := a.distros.Find(name)
	if err != nil {
		if near := a.nearCommand(argv); near != "" && name == "" {
			return hint.New(usage{errors.New("unknown command \"" + argv[0] + "\"")}, "did you mean 'lsub "+near+"'?")
		}
		return err
	}
	terminal := a.lend()
	defer terminal.close()
	err = a.exec(c.Context, d, distro.Command{
		Argv: argv, LoginShell: len(argv) > 0 && !c.Bool("no-shell"), User: c.String("user"), Dir: c.String("cd"),
	}, terminal)
	if near := a.nearCommand(argv); err == nil && a.code == exitNotFound && near != "" {
		a.note("hint", "did you mean 'lsub "+near+"'?")
	}
	return err
}

// nearCommand returns the command of lsub's that argv may be a slip for.
func (a *app) nearCommand(argv []string) string {
	if len(argv) == 0 {
		return ""
	}
	var names []string
	for _, c := range a.root().Commands {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	return hint.Nearest(argv[0], names)
}

var sessionFlags = []cli.Flag{
	&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "give the command a terminal"},
	&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "run as `USER` (a name or a number) instead of the distro's default user"},
	&cli.StringFlag{Name: "cd", Usage: "run in the folder `DIR` instead of the home folder"},
	&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "set the variable `NAME=VALUE`; may be given several times"},
}

func (a *app) execCommand() *cli.Command {
	return &cli.Command{
		Name:      "exec",
		Usage:     "run a command in a distro, without a shell",
		UsageText: "lsub exec [-t] [-u USER] [--cd DIR] [--env NAME=VALUE] DISTRO -- COMMAND [ARGUMENT…]",
		Description: "The arguments reach the command byte for byte. Its exit status is lsub's: 128+n where signal n " +
			"ended it, 127 where there is no such command, 126 where it cannot be executed, 125 where lsub failed.",
		Flags: sessionFlags,
		Action: func(c *cli.Context) error {
			name, argv := splitCommand(c.Args().Slice())
			if name == "" || len(argv) == 0 {
				return badUsage("lsub exec", "exec needs a distro and a command")
			}
			d, err := a.named(name)
			if err != nil {
				return err
			}
			cmd, err := command(c, argv)
			if err != nil {
				return err
			}
			return a.exec(c.Context, d, cmd, whole(c.Bool("tty")))
		},
	}
}

func (a *app) runCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "install an image where it is missing, and run a command in it",
		UsageText: "lsub run [--rm] [-t] [-u USER] [--cd DIR] [--env NAME=VALUE] [--insecure] IMAGE [--] [COMMAND [ARGUMENT…]]",
		Description: "IMAGE is an image as 'lsub install' takes it, or the name of a distro that is installed. " +
			"With --rm the command runs in a new distro of the image, or in a copy of the distro, which is removed when the command ends. " +
			"Without a command it opens the login shell. The exit status is that of 'lsub exec'.",
		Flags: append(slices.Clone(sessionFlags), insecureFlag,
			&cli.BoolFlag{Name: "rm", Usage: "run it in a distro of its own, which is removed when it ends"}),
		Action: func(c *cli.Context) error {
			ref, argv := splitCommand(c.Args().Slice())
			if ref == "" {
				return badUsage("lsub run", "run needs an image")
			}
			cmd, err := command(c, argv)
			if err != nil {
				return err
			}
			find := a.installed
			if c.Bool("rm") {
				var end func()
				find = func(ctx context.Context, ref string, insecure bool) (d *machine.Distro, err error) {
					d, end, err = a.once(ctx, ref, insecure)
					return d, err
				}
				defer func() {
					if end != nil {
						end()
					}
				}()
			}
			d, err := find(c.Context, ref, c.Bool(insecureFlag.Name))
			if err != nil {
				return err
			}
			terminal := whole(c.Bool("tty"))
			if terminal == nil && len(argv) == 0 {
				terminal = a.lend()
				defer terminal.close()
			}
			return a.exec(c.Context, d, cmd, terminal)
		},
	}
}

// once makes a distro for one command; end removes it, and is nil where there is none.
func (a *app) once(ctx context.Context, ref string, insecure bool) (_ *machine.Distro, end func(), err error) {
	var o distro.OnceOptions
	d, err := a.distros.Find(ref)
	if err == nil {
		o.From = d
	} else if o.Image, err = a.distros.Resolve(ctx, ref, ""); err != nil {
		return nil, nil, err
	} else if insecure {
		if o.Image, err = o.Image.AllowInsecure(); err != nil {
			return nil, nil, err
		}
	}
	p := a.newProgress()
	defer p.end()
	return a.distros.Once(ctx, o)
}

// command is what the flags of exec and run say of a command.
func command(c *cli.Context, argv []string) (distro.Command, error) {
	env := c.StringSlice("env")
	for _, e := range env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			return distro.Command{}, hint.New(usage{errors.New("--env " + e + " sets no variable")}, "give it as --env NAME=VALUE")
		}
	}
	return distro.Command{Argv: argv, User: c.String("user"), Dir: c.String("cd"), Env: env}, nil
}

// splitCommand splits "NAME [--] COMMAND…". A "--" that comes later is the command's own.
func splitCommand(args []string) (name string, argv []string) {
	if len(args) == 0 {
		return "", nil
	}
	name, argv = args[0], args[1:]
	if len(argv) > 0 && argv[0] == "--" {
		argv = argv[1:]
	}
	return name, argv
}
