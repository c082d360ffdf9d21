package distro

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/images"
	"github.com/lsub/lsub/images/catalogue"
	"github.com/lsub/lsub/machine"
)

const (
	// distroTimeout bounds the start and the stop of a distro. The guest has shorter
	// bounds of its own, and says more.
	distroTimeout = 3 * time.Minute
	// infoTimeout bounds questions to the guest that it answers at once.
	infoTimeout = 20 * time.Second
	// cleanTimeout bounds what is undone after a failure.
	cleanTimeout = 15 * time.Second
)

// StopTimeout is how long a distro usually has to shut down before it is killed.
const StopTimeout = 30 * time.Second

// Config says what a Service works with. Machine, Paths and Version are required.
type Config struct {
	Machine *machine.Machine
	Paths   machine.Paths // those of Machine
	Version string        // of lsub, as Machine's

	// Arch is the processor that the VM has, as GOARCH; "" is the host's.
	Arch   string
	Events Events // nil discards
	// Program is the path of lsub, for distros that start when the user logs in; ""
	// stands for the program that runs.
	Program string
	// Getenv reads the environment in which proxies are looked up; nil is os.Getenv.
	Getenv func(string) string
	Logger *slog.Logger // nil discards

	// Images returns the source of an image; nil is that of package images.
	Images func(images.Ref) images.Source
	// Catalogues returns those that are asked for short names after those of the profile;
	// nil is the default ones.
	Catalogues func() []catalogue.Catalogue
	// BuildsDebian tells whether this host can build Debian suites; nil is
	// [images.CanBuildDebian].
	BuildsDebian func() bool
	// PauseCheck is how often a command that runs asks whether the VM is halted; 0 is
	// ten seconds.
	PauseCheck time.Duration
}

// Service works on the distros of a profile. It holds nothing open.
type Service struct {
	cfg     Config
	machine *machine.Machine
	events  Events
	log     *slog.Logger
}

// New returns the Service of a machine. It reads nothing and starts nothing.
func New(cfg Config) *Service {
	cfg.Arch = cmp.Or(cfg.Arch, runtime.GOARCH)
	if cfg.Getenv == nil {
		cfg.Getenv = os.Getenv
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Events == nil {
		cfg.Events = silent{}
	}
	if cfg.Images == nil {
		cfg.Images = func(ref images.Ref) images.Source { return images.SourceOf(ref, cfg.Paths.Cache, cfg.Logger) }
	}
	if cfg.Catalogues == nil {
		cfg.Catalogues = func() []catalogue.Catalogue { return catalogue.Defaults(cfg.Logger) }
	}
	if cfg.BuildsDebian == nil {
		cfg.BuildsDebian = images.CanBuildDebian
	}
	if cfg.PauseCheck == 0 {
		cfg.PauseCheck = 10 * time.Second
	}
	return &Service{cfg: cfg, machine: cfg.Machine, events: cfg.Events, log: cfg.Logger}
}

// With returns the same Service for a caller with Events of its own.
func (s *Service) With(e Events) *Service {
	with := *s
	with.events = e
	return &with
}

// client returns a client of the guest that starts the VM where it is off.
func (s *Service) client() *guest.Client { return guest.NewClient(s.machine, s.cfg.Version) }

// running returns a client of the guest of a VM that runs already.
func (s *Service) running() *guest.Client {
	return guest.NewClient(s.machine.Running(), s.cfg.Version)
}

// explain replaces an error of a connection that broke by the reason.
func (s *Service) explain(ctx context.Context, err *error) {
	*err = s.machine.Explain(ctx, *err)
}

// change changes a distro in the registry.
func (s *Service) change(ctx context.Context, id string, change func(*machine.Distro) error) error {
	return s.machine.Update(ctx, func(r *machine.Registry) error { return r.Change(id, change) })
}

// unlessOff returns err, or nil if it says that the VM is off: then there is nothing to do.
func unlessOff(err error) error {
	if errors.Is(err, machine.ErrNotRunning) {
		return nil
	}
	return err
}

// interruptedError says what an interruption means to the user.
type interruptedError struct {
	text  string
	cause error
}

func (e *interruptedError) Error() string { return e.text }
func (e *interruptedError) Unwrap() error { return e.cause }

// interrupted returns an error with text if the end of ctx is why err came, else err.
func interrupted(ctx context.Context, err error, text string) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return &interruptedError{text, err}
	}
	return err
}
