package main

import (
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/supervisor"
)

// superviseCommand is what a command starts in the background to have a VM.
// Users do not call it.
func (a *app) superviseCommand() *cli.Command {
	return &cli.Command{
		Name: "supervise", Hidden: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "home", Required: true},
			&cli.StringFlag{Name: "runtime", Required: true},
			&cli.StringFlag{Name: "cache", Required: true},
			&cli.Uint64Flag{Name: "ready-fd"},
		},
		Action: func(c *cli.Context) error {
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			setup := supervisor.Setup{
				Config: machine.Config{
					Profile: c.String("profile"),
					Paths:   machine.Paths{Home: c.String("home"), Runtime: c.String("runtime"), Cache: c.String("cache")},
					Version: a.version,
					Logger:  slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: a.level})),
				},
				Driver: a.driver, Guest: a.guest, Network: a.network, BootTimeout: a.bootTimeout, Getenv: os.Getenv,
				ShareServer: []string{exe, "--log-level=" + supervisorLevel(a.level), "serve-share"},
			}
			if fd := c.Uint64("ready-fd"); fd > 0 {
				setup.Reporter = machine.NewReporter(os.NewFile(uintptr(fd), "ready"))
			}
			cfg, err := setup.Load(c.Context)
			if err != nil {
				setup.Reporter.Finish(err)
				return err
			}
			leaveProcessors()
			boundMemory()
			return supervisor.Run(c.Context, cfg)
		},
	}
}

// boundMemory has the garbage collector work harder where the supervisor takes much more
// memory than usual.
func boundMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(512 << 20)
	}
}

// leaveProcessors has the supervisor's goroutines keep to half of the processors. It
// has little to do, and often: with all of them, Go's scheduler wakes more threads than
// there is work for, on those that the VM runs on. On two, a byte took a sixth longer to
// a port and back.
func leaveProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(1, runtime.NumCPU()/2))
	}
}
