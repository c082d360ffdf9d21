package account

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/lsub/lsub/guest/agent/distrofile"
	"github.com/lsub/lsub/guest/guestv1"
)

// DefaultPath is the PATH of commands where the distro does not set another.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Environment returns a command's environment: the user's own variables, the distro's
// over them, and those that cmd sets over both. The calling thread's root directory is
// the distro's.
//
// Scripts made for WSL look at WSL_DISTRO_NAME. There is no WSL_INTEROP, which
// names a socket, because programs of the host cannot be started from a distro.
func Environment(who *Account, cmd *guestv1.Exec) []string {
	title := cmp.Or(cmd.Distro.GetTitle(), cmd.Distro.GetName())
	env := []string{
		"PATH=" + DefaultPath, "HOME=" + who.Home, "USER=" + who.Name, "LOGNAME=" + who.Name,
		"SHELL=" + who.Shell, "LANG=C.UTF-8", "LSUB_DISTRO_NAME=" + title, "WSL_DISTRO_NAME=" + title,
	}
	run := fmt.Sprintf("/run/user/%d", who.UID)
	if distrofile.Exists(run) {
		env = append(env, "XDG_RUNTIME_DIR="+run)
		if distrofile.Exists(run + "/bus") {
			env = append(env, "DBUS_SESSION_BUS_ADDRESS=unix:path="+run+"/bus")
		}
	}
	// As PAM does it: the language, where a distro keeps it, and the rest.
	for _, file := range []string{"/etc/locale.conf", "/etc/default/locale", "/etc/environment"} {
		if b, err := distrofile.Read(file); err == nil {
			env = append(env, readVariables(b)...)
		}
	}
	for _, e := range cmd.Env {
		env = append(env, string(e))
	}
	env = lastWins(env)
	if term := LookupEnv(env, "TERM"); cmd.Tty && term != "" && LookupEnv(env, "TERMINFO") == "" {
		env = lastWins(append(env, "TERM="+knownTerm(distrofile.Exists, term, who.Home)))
	}
	return env
}

// knownTerm returns the type of the host's terminal, or one that it is like where the
// distro has no description of it: programs refuse to run at a terminal that they do not
// know. A distro without descriptions gets the host's.
func knownTerm(exists func(string) bool, term, home string) string {
	for _, name := range []string{term, "xterm-256color", "xterm"} {
		if strings.ContainsAny(name, "/\x00") {
			continue
		}
		for _, dir := range []string{home + "/.terminfo", "/etc/terminfo", "/lib/terminfo", "/usr/lib/terminfo", "/usr/share/terminfo"} {
			if exists(dir+"/"+name[:1]+"/"+name) || exists(fmt.Sprintf("%s/%x/%s", dir, name[0], name)) {
				return name
			}
		}
	}
	return term
}

// readVariables reads a file such as /etc/environment.
func readVariables(file []byte) (env []string) {
	for line := range strings.Lines(string(file)) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "export ")
		if k, v, ok := strings.Cut(line, "="); ok && k != "" && k[0] != '#' {
			env = append(env, k+"="+unquote(v))
		}
	}
	return env
}

// lastWins keeps the last value of each variable.
func lastWins(env []string) []string {
	at := map[string]int{}
	var out []string
	for _, e := range env {
		k, _, _ := strings.Cut(e, "=")
		if i, ok := at[k]; ok {
			out[i] = e
			continue
		}
		at[k] = len(out)
		out = append(out, e)
	}
	return out
}

// LookupEnv returns the value of a variable in env, "" where there is none.
func LookupEnv(env []string, key string) string {
	for _, e := range env {
		if k, v, _ := strings.Cut(e, "="); k == key {
			return v
		}
	}
	return ""
}
