package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/images"
	"github.com/lsub/lsub/images/catalogue"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/printable"
	"github.com/lsub/lsub/supervisor"
)

// exitFailed is the exit status where lsub itself failed: it keeps apart from
// those of the commands that lsub runs.
const (
	exitFailed        = 125
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSIGPIPE       = 128 + 13 // as a shell has it of a program whose output nobody reads any more
)

// backend is what lsub works with, which a test replaces.
type backend struct {
	version     string
	arch        string // of the VM's processor, as GOARCH; "" is the host's
	driver      func(*slog.Logger) (hypervisor.Driver, error)
	guest       func(ctx context.Context, cache string) (supervisor.GuestFiles, error)
	images      func(ref images.Ref, cache string, log *slog.Logger) images.Source
	catalogues  func(log *slog.Logger) []catalogue.Catalogue
	bootstraps  func() bool   // whether Debian's suites can be made here
	network     bool          // whether the VM has one
	bootTimeout time.Duration // 0 for the usual
	patience    time.Duration // as machine.Config.Patience
	pauseCheck  time.Duration // how often a command that runs asks whether the VM is halted
}

// app is one run of lsub.
type app struct {
	backend
	args           []string // as they were typed
	stdin          *os.File
	stdout, stderr io.Writer
	signals        *signals
	status         *statusLine              // what is being done, while nothing else is on the terminal
	progress       atomic.Pointer[progress] // of long work that is under way
	log            *slog.Logger
	level          *slog.LevelVar
	machine        *machine.Machine
	distros        *distro.Service
	paths          machine.Paths
	code           int // exit status of the command that ran
}

// run is lsub: it parses args, does what they ask, and returns the exit status.
func run(args []string, b backend) int {
	ctx, sig := catchSignals(context.Background())
	defer sig.stop()
	a := &app{
		backend: b, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		signals: sig, level: new(slog.LevelVar),
	}
	a.level.Set(slog.LevelWarn)
	a.log = slog.New(slog.NewTextHandler(logWriter{a}, &slog.HandlerOptions{Level: a.level}))
	a.status = newStatusLine(os.Stderr)
	root := a.root()
	a.args = args
	words, err := fromWSL(args[1:])
	if err == nil {
		err = root.RunContext(ctx, arrange(root, append([]string{args[0]}, words...)))
	}
	a.status.clear()
	if err == nil {
		return a.code
	}
	if code := sig.code(); code != 0 {
		fmt.Fprintln(a.stderr, "lsub: error: interrupted")
		if advice := hint.Of(err); advice != "" && errors.Is(err, context.Canceled) {
			fmt.Fprintln(a.stderr, "lsub: hint:", indented(advice))
		}
		return code
	}
	a.printError(err)
	if len(args) == 1 {
		holdWindow()
	}
	return exitCode(err)
}

func init() {
	usual := cli.FlagStringer
	cli.FlagStringer = func(f cli.Flag) string { return strings.Replace(usual(f), " (default: false)", "", 1) }
}

// root is the command line.
func (a *app) root() *cli.App {
	root := &cli.App{
		Name:      "lsub",
		Usage:     "Linux distros in one light VM",
		UsageText: "lsub [-d DISTRO] [-u USER] [--cd DIR] [--] [CMD…]\nlsub COMMAND [flags] [arguments]",
		Description: "Without a command of lsub's own, it opens your login shell in the default distro, " +
			"or runs CMD through that shell. The flags of wsl.exe (--list --verbose, -d NAME -e CMD, --terminate NAME, …) work too.",
		Writer: a.stdout, ErrWriter: a.stderr,
		HideVersion: true, HideHelpCommand: true,
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {}, // run prints and chooses the status
		OnUsageError:              a.usageError,
		CommandNotFound:           nil,
		Before:                    a.open,
		Action:                    a.shell,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "distro", Aliases: []string{"d"}, Usage: "in `DISTRO` instead of the default one"},
			&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "as `USER` instead of the distro's default user"},
			&cli.StringFlag{Name: "cd", Usage: "in the folder `DIR` instead of the home folder"},
			&cli.StringFlag{Name: "profile", Value: "default", EnvVars: []string{"LSUB_PROFILE"}, Usage: "with the VM and the distros of profile `NAME`"},
			&cli.BoolFlag{Name: "no-shell", Hidden: true}, // run CMD itself, as 'wsl --exec' does
			&cli.StringFlag{Name: "home", Hidden: true},   // as LSUB_HOME, for what has no environment of its own
			&cli.StringFlag{Name: "log-level", Value: "warn", EnvVars: []string{"LSUB_LOG_LEVEL"}, Usage: "log to stderr from `LEVEL` on: debug, info, warn or error"},
			&cli.BoolFlag{Name: "version", Usage: "print the version"},
		},
		Commands: []*cli.Command{
			a.runCommand(), a.execCommand(), a.shellCommand(),
			a.installCommand(), a.importCommand(), a.exportCommand(), a.cpCommand(), a.pathCommand(), a.sshConfigCommand(), a.sshProxyCommand(), a.listCommand(), a.cloneCommand(), a.renameCommand(), a.unregisterCommand(), a.registerCommand(),
			a.snapshotCommand(), a.manageCommand(), a.setDefaultCommand(),
			a.upCommand(), a.downCommand(), a.waitCommand(), a.profileCommand(),
			a.startCommand(), a.stopCommand(), a.shutdownCommand(), a.statusCommand(), a.portsCommand(),
			a.mountCommand(), a.logsCommand(), a.doctorCommand(), a.completionCommand(), a.completeCommand(), a.manCommand(), a.versionCommand(), a.superviseCommand(), a.serveShareCommand(),
		},
	}
	for _, c := range root.Commands {
		c.OnUsageError = a.usageError
		c.HideHelpCommand = true
	}
	return root
}

// open opens the profile's machine; only some commands need one.
func (a *app) open(c *cli.Context) error {
	if c.Bool("version") {
		return nil
	}
	if level := c.String("log-level"); level == "" {
		a.level.Set(slog.LevelWarn) // the variable is set to nothing
	} else if err := a.level.UnmarshalText([]byte(level)); err != nil {
		return hint.New(fmt.Errorf("unknown log level %q", c.String("log-level")), "it is debug, info, warn or error")
	}
	switch c.Args().First() {
	case "version", "supervise", "serve-share", "help", "h":
		return nil
	}
	if wantsHelp(c.Args().Tail()) {
		return nil
	}
	paths, err := machine.DefaultPaths(func(name string) string {
		if home := c.String("home"); name == "LSUB_HOME" && home != "" {
			return home
		}
		return os.Getenv(name)
	})
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	a.paths = paths
	profile := c.String("profile")
	if profile == "" { // the variable is set to nothing
		profile = "default"
	}
	a.machine, err = machine.Open(machine.Config{
		Profile: profile, Paths: paths, Version: a.version,
		Supervisor: []string{
			exe, "--profile=" + profile, "--log-level=" + supervisorLevel(a.level), "supervise",
			"--home=" + paths.Home, "--runtime=" + paths.Runtime, "--cache=" + paths.Cache,
		},
		Progress: a.startStage,
		Notice:   func(text string) { a.note("note", text) },
		Warn:     a.warn,
		Logger:   a.log,
		Patience: a.patience,
	})
	if err != nil {
		return err
	}
	a.distros = distro.New(distro.Config{
		Machine: a.machine, Paths: paths, Version: a.version, Arch: a.arch, Events: events{a}, Program: exe, Logger: a.log,
		Images:     func(ref images.Ref) images.Source { return a.images(ref, paths.Cache, a.log) },
		Catalogues: func() []catalogue.Catalogue { return a.catalogues(a.log) }, BuildsDebian: a.bootstraps,
		PauseCheck: a.pauseCheck,
	})
	return nil
}

// supervisorLevel has the supervisor log what happens, and more where the user wants it.
func supervisorLevel(l *slog.LevelVar) string { return min(l.Level(), slog.LevelInfo).String() }

func wantsHelp(args []string) bool {
	return len(args) > 0 && (args[0] == "--help" || args[0] == "-h")
}

// usage is a command line that makes no sense.
type usage struct{ error }

func (u usage) Unwrap() error { return u.error }

func (a *app) usageError(c *cli.Context, err error, _ bool) error {
	text := err.Error()
	if flag, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		text = "unknown flag -" + flag
		for _, arg := range a.args { // as it was typed
			if typed, _, _ := strings.Cut(arg, "="); typed == "--"+flag {
				text = "unknown flag --" + flag
			}
		}
	}
	name := "lsub"
	if c.Command != nil && c.Command.Name != "" && c.Command.Name != "lsub" {
		name += " " + c.Command.Name
	}
	return badUsage(name, "%s", text)
}

// badUsage is the error for a command that was called the wrong way.
func badUsage(command, format string, args ...any) error {
	return hint.New(usage{fmt.Errorf(format, args...)}, "see '"+command+" --help'")
}

// printError prints an error and its advice, as every command does.
func (a *app) printError(err error) {
	fmt.Fprintf(a.stderr, "lsub: error: %s\n", indented(err.Error()))
	if advice := hint.Of(err); advice != "" {
		fmt.Fprintln(a.stderr, "lsub: hint:", indented(advice))
	}
}

// indented returns a text for a terminal. Its further lines are indented, so that none
// looks like a message of its own.
func indented(text string) string {
	lines := strings.Split(printable.Text(text), "\n")
	for i := range lines[1:] {
		lines[i+1] = "  " + strings.TrimPrefix(lines[i+1], "  ")
	}
	return strings.Join(lines, "\n")
}

// note prints a line that is no error.
func (a *app) note(kind, text string) {
	a.aside(func() { fmt.Fprintf(a.stderr, "lsub: %s: %s%s", kind, indented(text), a.status.newline()) })
}

// aside calls print while nothing else is on the last line of the terminal.
func (a *app) aside(print func()) {
	if p := a.progress.Load(); p != nil {
		p.aside(print)
		return
	}
	a.status.clear()
	print()
}

// logWriter is stderr for the log, whose lines come at any time.
type logWriter struct{ a *app }

func (w logWriter) Write(p []byte) (n int, err error) {
	w.a.aside(func() { n, err = w.a.stderr.Write(p) })
	return n, err
}

// warn tells a user at a terminal what they would hear at each start of the
// VM; in the output of a script it would be noise.
func (a *app) warn(text string) {
	if a.status.w != nil {
		a.note("warning", text)
	}
}

// exitCode chooses the exit status for an error.
func exitCode(err error) int {
	var c interface{ ExitCode() int }
	if errors.As(err, &c) {
		return c.ExitCode()
	}
	switch guest.ErrorCode(err) {
	case guestv1.ErrorCode_ERROR_CODE_COMMAND_NOT_FOUND:
		return exitNotFound
	case guestv1.ErrorCode_ERROR_CODE_NOT_EXECUTABLE:
		return exitNotExecutable
	}
	return exitFailed
}

// displayPath shortens a path for a message.
func displayPath(path string) string {
	if home, err := os.UserHomeDir(); err == nil {
		if rel, err := filepath.Rel(home, path); err == nil && filepath.IsLocal(rel) {
			return filepath.Join("~", rel)
		}
	}
	return path
}
