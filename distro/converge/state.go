package converge

import (
	"bytes"
	"context"
	_ "embed" // the scripts below
	"fmt"
	"strings"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/distro/provision"
	"github.com/lsub/lsub/profile"
)

//go:embed state.sh
var stateScript string

// state is what root, or the default user, sees of a distro.
type state struct {
	marks    map[string]string // texts, by the marks' names
	manager  string            // of packages; "" for none
	packages map[string]bool   // installed
	files    map[int]fileState // by their place in the profile
	guards   map[int]bool      // satisfied, by the step's place
	systemd  bool              // the distro has systemd
	conf     string            // /etc/lsub.conf
}

// fileState is how a file of a distro is.
type fileState struct {
	sum                    string // SHA-256 in hex
	mode                   string // octal
	user, group, uid, gids string
}

// ask asks a distro for its state: as root for what is not in the user's home directory, else
// as the default user.
func (o *one) ask(ctx context.Context, home bool) (*state, error) {
	dir, user := provision.RootMarks, "root"
	if home {
		dir, user = provision.UserMarks, ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "set -- %s\n%s\nmarks \"$dir\"\n", quoted(dir), stateScript)
	if !home {
		fmt.Fprintf(&b, "marks %s\npackages", provision.StartMarks)
		for _, p := range o.want.Packages {
			b.WriteString(" " + quoted(p))
		}
		b.WriteString("\n")
	}
	for i, f := range o.want.Files {
		if f.Home() == home {
			fmt.Fprintf(&b, "file %d %s\n", i, quoted(f.Path))
		}
	}
	for i, s := range o.want.Provision {
		if provision.Guarded(s) && (s.Mode == profile.StepUser) == home {
			fmt.Fprintf(&b, "guard %d %s %s\n", i, quoted(s.Creates), quoted(s.Unless))
		}
	}
	if !home && o.want.Systemd != nil {
		b.WriteString("for f in /lib/systemd/systemd /usr/lib/systemd/systemd; do [ -x $f ] && echo systemd && break; done\n" +
			"echo conf\n[ ! -f /etc/lsub.conf ] || cat /etc/lsub.conf\n")
	}
	b.WriteString("exit 0\n")
	var out, errs provision.Limited
	exit, err := o.cfg.Service.Exec(ctx, &o.info.Distro, distro.Command{
		Argv: []string{"/bin/sh", "-s", "lsub-up"}, User: user, Dir: "/",
		Stdin: strings.NewReader(b.String()), Stdout: &out, Stderr: &errs,
	})
	if err != nil {
		return nil, err
	}
	if exit.Status() != 0 {
		return nil, &provision.StepError{Distro: o.name, Name: "the question for its state", Status: exit.Status(), Last: provision.LastLines(errs.String(), provision.MaxLast)}
	}
	return parseState(out.Bytes()), nil
}

// parseState reads what state.sh prints. The distro's root may have it print anything: lines
// that make no sense are skipped.
func parseState(out []byte) *state {
	s := &state{marks: map[string]string{}, packages: map[string]bool{}, files: map[int]fileState{}, guards: map[int]bool{}}
	for len(out) > 0 {
		var raw []byte
		raw, out, _ = bytes.Cut(out, []byte("\n"))
		line := string(raw)
		word, rest, _ := strings.Cut(line, " ")
		number := func(text string) (n int, ok bool) {
			_, err := fmt.Sscanf(text, "%d", &n)
			return n, err == nil && n >= 0
		}
		switch word {
		case "mark":
			name, text, _ := strings.Cut(rest, " ")
			s.marks[name] = text
		case "manager":
			s.manager = rest
		case "package":
			s.packages[rest] = true
		case "guard":
			if i, ok := number(rest); ok {
				s.guards[i] = true
			}
		case "file":
			f := strings.Fields(rest)
			if len(f) != 7 {
				continue
			}
			if i, ok := number(f[0]); ok {
				s.files[i] = fileState{f[1], f[2], f[3], f[4], f[5], f[6]}
			}
		case "systemd":
			s.systemd = true
		case "conf":
			s.conf = string(out)
			return s
		}
	}
	return s
}

// is tells whether a file is as the profile wants it.
func (f fileState) is(want profile.GuestFile, sum string) bool {
	if f.sum != sum || f.mode != fmt.Sprintf("%o", want.Mode) {
		return false
	}
	if want.Home() {
		return true // it belongs to who has written it
	}
	user, group, grouped := strings.Cut(want.Owner, ":")
	if user == "" {
		user, group, grouped = "0", "0", true
	}
	return (user == f.user || user == f.uid) && (!grouped || group == f.group || group == f.gids)
}

// quoted returns a text as one word of a shell.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
