package distro

import (
	"fmt"
	"os/user"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images"
	"github.com/lsub/lsub/machine"
)

// maxAccount is the longest account name that useradd takes.
const maxAccount = 32

// reserved are accounts that every Debian has already.
var reserved = []string{
	"daemon", "bin", "sys", "sync", "games", "man", "lp", "mail", "news", "uucp", "proxy", "www-data",
	"backup", "list", "irc", "_apt", "nobody", "messagebus", "polkitd",
}

// accountFor returns the account to make in a distro, and nil for none: then root is the
// default user. Without a name, only Debian suites get an account: nobody knows what an
// image of another kind has.
func accountFor(ref images.Ref, name string) (*guestv1.User, error) {
	switch {
	case name == "root", name == "" && ref.Source != "debian":
		return nil, nil
	case name != "":
		if name != accountName(name) {
			return nil, hint.New(fmt.Errorf("%q cannot be the name of an account", name),
				"it has small letters, digits, '_' and '-', starts with a letter, is at most 32 long, and is none of the system's own")
		}
		_, uid := hostUser()
		return &guestv1.User{Name: name, Uid: uid}, nil
	}
	name, uid := hostUser()
	if uid == 0 {
		return nil, nil
	}
	return &guestv1.User{Name: name, Uid: uid}, nil
}

// imageWishes gives a distro the default user and the first run that its image asks for.
// It is for distros for which the user names no account.
func (s *Service) imageWishes(img *images.Image, d *machine.Distro) {
	s.warnOf(d.Name, img.Setup.Warnings)
	if img.Setup.Command != "" || img.Setup.UID != 0 {
		d.FirstRun = &machine.FirstRun{Command: img.Setup.Command, UID: img.Setup.UID}
	}
	name, group, _ := strings.Cut(img.Config.User, ":")
	switch {
	case (name == "" || name == "root" || name == "0") && (group == "" || group == "root" || group == "0"):
	case !containerUser.MatchString(img.Config.User):
		s.events.Warn(fmt.Sprintf("%s: the image's user %.100q is none, so root is the default user", d.Name, img.Config.User))
	default:
		d.User = img.Config.User
		if uid, err := strconv.ParseUint(name, 10, 32); err == nil {
			d.UID = uint32(uid)
		}
	}
}

// containerUser is USER or USER:GROUP, each a name or a number.
var containerUser = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,31})?$`)

// hostUser returns the user's name as an account can have it, and their
// number; 0 for root. A number that distributions keep for themselves (macOS
// counts from 501), or none at all (Windows), becomes the first one for people.
func hostUser() (string, uint32) {
	u, err := user.Current()
	if err != nil {
		return "user", machine.FirstUID
	}
	return accountName(u.Username), machine.AccountUID(u.Uid)
}

// accountName makes of a name one that useradd takes: "CORP\Ada.Lovelace"
// gives "ada-lovelace".
func accountName(name string) string {
	name = strings.ToLower(name[strings.LastIndex(name, `\`)+1:])
	name, _, _ = strings.Cut(name, "@")
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
			return r
		}
		return '-'
	}, name)
	name = strings.TrimLeft(name, "-0123456789")
	name = strings.TrimRight(name[:min(len(name), maxAccount)], "-")
	switch {
	case name == "":
		return "user"
	case slices.Contains(reserved, name), strings.HasPrefix(name, "systemd-") && !strings.HasSuffix(name, "-user"):
		return name[:min(len(name), maxAccount-5)] + "-user"
	}
	return name
}
