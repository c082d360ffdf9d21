package main

import (
	"context"
	"fmt"
	"strconv"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/machine"
)

// login opens a session that may be the distro's first shell: then what the
// image wants to be run before has to succeed.
func (a *app) login(ctx context.Context, s session) (int, error) {
	if err := a.equipSession(ctx, &s); err != nil {
		return 0, err
	}
	if s.distro.FirstRun == nil || !s.tty || len(s.argv) > 0 {
		return a.runSession(ctx, s)
	}
	keys := newKeyboard(a.stdin)
	d, err := a.firstRun(ctx, s.distro, s.env, keys)
	if err != nil {
		return 0, err
	}
	s.distro = *d
	var giveBack func()
	s.stdin, giveBack = keys.lend()
	defer giveBack()
	return a.runSession(ctx, s)
}

// firstRun does what is to be done in a distro before its first shell, and
// returns the distro as it is then. env is for what runs.
func (a *app) firstRun(ctx context.Context, d machine.Distro, env []string, keys *keyboard) (*machine.Distro, error) {
	now, end, err := a.machine.BeginFirstRun(ctx, &d, func() {
		a.status.set("waiting for the first start of " + d.Name + " in another terminal")
	})
	a.status.clear()
	if err != nil {
		return nil, err
	}
	defer end()
	if now.FirstRun == nil {
		return now, nil
	}
	if command := now.FirstRun.Command; command != "" {
		if err := a.runFirst(ctx, *now, command, env, keys); err != nil {
			return nil, err
		}
	}
	user, uid, err := a.firstUser(ctx, now)
	if err != nil {
		return nil, err
	}
	return a.machine.EndFirstRun(ctx, now.ID, user, uid)
}

// runFirst runs the image's command at the terminal.
func (a *app) runFirst(ctx context.Context, d machine.Distro, command string, env []string, keys *keyboard) error {
	stdin, giveBack := keys.lend()
	defer giveBack()
	code, err := a.runSession(ctx, session{
		distro: d, argv: []string{"/bin/sh", "-c", command}, user: "root", env: env, tty: true, stdin: stdin,
	})
	if err == nil && code != 0 {
		err = hint.New(&firstRunError{d.Name, code}, fmt.Sprintf("try again; 'lsub exec -t -u root %s -- /bin/sh' gets in without it", d.Name))
	}
	return err
}

// firstRunError says that an image's command for the first shell failed.
type firstRunError struct {
	distro string
	code   int
}

func (e *firstRunError) Error() string {
	return fmt.Sprintf("what %s runs before its first shell ended with status %d", e.distro, e.code)
}

// ExitCode is the command's own.
func (e *firstRunError) ExitCode() int { return e.code }

// firstUser makes the account that the first run was to make the default user.
func (a *app) firstUser(ctx context.Context, d *machine.Distro) (name string, uid uint32, err error) {
	if d.FirstRun.UID == 0 {
		return "", 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, distroTimeout)
	defer cancel()
	number := strconv.FormatUint(uint64(d.FirstRun.UID), 10)
	res, err := a.client().SetDefaultUser(ctx, connect.NewRequest(&guestv1.SetDefaultUserRequest{Id: d.ID, User: number}))
	if guest.ErrorCode(err) == guestv1.ErrorCode_ERROR_CODE_NO_SUCH_USER {
		a.note("warning", fmt.Sprintf("nobody in %s has the number %s, which its image says of the default user", d.Name, number))
		return "", 0, nil
	}
	if err != nil {
		return "", 0, err
	}
	return res.Msg.Name, res.Msg.Uid, nil
}
