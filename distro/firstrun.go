package distro

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

// firstRun does what is to be done in a distro before its first shell, and returns the
// distro as it is then. shell says what the commands are given.
func (s *Service) firstRun(ctx context.Context, d *machine.Distro, shell Command, keys *keyboard) (*machine.Distro, error) {
	ready, end, err := s.machine.BeginFirstRun(ctx, d, func() {
		s.events.Progress(Step{Text: "waiting for the first start of " + d.Name + " in another terminal"})
	})
	s.done()
	if err != nil {
		return nil, err
	}
	defer end()
	ready.Env = d.Env
	if ready.FirstRun == nil {
		return ready, nil
	}
	if command := ready.FirstRun.Command; command != "" {
		if err := s.runFirst(ctx, ready, command, shell, keys); err != nil {
			return nil, err
		}
	}
	user, uid, err := s.firstUser(ctx, ready)
	if err != nil {
		return nil, err
	}
	done, err := s.machine.EndFirstRun(ctx, ready.ID, user, uid)
	if err != nil {
		return nil, err
	}
	done.Env = d.Env
	return done, nil
}

// runFirst runs the image's command as root at the shell's terminal.
func (s *Service) runFirst(ctx context.Context, d *machine.Distro, command string, shell Command, keys *keyboard) error {
	stdin, giveBack := keys.lend()
	defer giveBack()
	first := shell
	first.Argv, first.LoginShell = []string{"/bin/sh", "-c", command}, false
	first.User, first.Dir, first.Stdin = "root", "", stdin
	exit, err := s.exec(ctx, d, first)
	if err == nil && exit.Status() != 0 {
		err = hint.New(&FirstRunError{d.Name, exit.Status()}, fmt.Sprintf("try again; 'lsub exec -t -u root %s -- /bin/sh' gets in without it", d.Name))
	}
	return err
}

// firstUser makes the account that the first run was to make the default user.
func (s *Service) firstUser(ctx context.Context, d *machine.Distro) (name string, uid uint32, err error) {
	if d.FirstRun.UID == 0 {
		return "", 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, distroTimeout)
	defer cancel()
	number := strconv.FormatUint(uint64(d.FirstRun.UID), 10)
	res, err := s.client().SetDefaultUser(ctx, connect.NewRequest(&guestv1.SetDefaultUserRequest{Id: d.ID, User: number}))
	if guest.ErrorCode(err) == guestv1.ErrorCode_ERROR_CODE_NO_SUCH_USER {
		s.events.Warn(fmt.Sprintf("nobody in %s has the number %s, which its image says of the default user", d.Name, number))
		return "", 0, nil
	}
	if err != nil {
		return "", 0, err
	}
	return res.Msg.Name, res.Msg.Uid, nil
}
