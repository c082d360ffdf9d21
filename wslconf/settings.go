package wslconf

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
)

// Settings are a distro's settings from its own files.
type Settings struct {
	Systemd        bool          // systemd becomes the init if the distro has it
	Command        string        // for /bin/sh -c, as root at each start; "" for none
	InitTimeout    time.Duration // until commands may enter a distro whose systemd is not up; 0 if not set
	ProtectBinfmt  bool          // the distro cannot remove all distros' binary formats at once
	MountFSTab     bool          // the mounts in /etc/fstab are made at the start
	User           string        // default user, name or uid; "" if not set
	UserAt         string        // "FILE:LINE" of User
	Hostname       string        // "" if not set
	WriteHosts     bool          // /etc/hosts is kept by lsub
	WriteResolv    bool          // /etc/resolv.conf is kept by lsub
	FollowTimezone bool          // the time zone is the host's
	Umask          int           // of commands
}

// Defaults are the settings of a distro without such files.
func Defaults() Settings {
	return Settings{Systemd: true, ProtectBinfmt: true, MountFSTab: true, WriteHosts: true, WriteResolv: true, FollowTimezone: true, Umask: 0o022}
}

// keys are all keys of WSL. A setter returns an error for an invalid value. Keys that have no
// use in lsub's distros are only checked.
var keys = map[string]func(s *Settings, value string) error{
	"automount.cgroups":          checkCgroups,
	"automount.enabled":          ignoreBool,
	"automount.ldconfig":         ignoreBool,
	"automount.mountfstab":       setBool(func(s *Settings) *bool { return &s.MountFSTab }),
	"automount.options":          ignoreText,
	"automount.root":             checkRoot,
	"boot.command":               func(s *Settings, v string) error { s.Command = v; return nil },
	"boot.inittimeout":           setTimeout,
	"boot.protectbinfmt":         setBool(func(s *Settings) *bool { return &s.ProtectBinfmt }),
	"boot.systemd":               setBool(func(s *Settings) *bool { return &s.Systemd }),
	"fileserver.enabled":         ignoreBool,
	"fileserver.logfile":         ignoreText,
	"fileserver.loglevel":        ignoreText,
	"fileserver.logtruncate":     ignoreBool,
	"filesystem.umask":           setUmask,
	"general.guiapplications":    ignoreBool,
	"general.hostname":           ignoreText,
	"gpu.appendlibpath":          ignoreBool,
	"gpu.enabled":                ignoreBool,
	"interop.appendwindowspath":  ignoreBool,
	"interop.enabled":            ignoreBool,
	"network.generatehosts":      setBool(func(s *Settings) *bool { return &s.WriteHosts }),
	"network.generateresolvconf": setBool(func(s *Settings) *bool { return &s.WriteResolv }),
	"network.hostname":           setHostname,
	"time.usewindowstimezone":    setBool(func(s *Settings) *bool { return &s.FollowTimezone }),
	"user.default":               setUser,
}

// maxWarnings bounds the warnings for one file.
const maxWarnings = 20

// Apply applies a file over the settings. The warnings name the file and, if they concern a
// line, the line: "/etc/wsl.conf:3: …".
func (s *Settings) Apply(file string, data []byte) (warnings []string) {
	text, wide := Decode(data)
	if wide {
		warnings = append(warnings, file+": is UTF-16, which WSL does not read; save it as UTF-8")
	}
	entries, problems := Parse(text)
	for _, e := range entries {
		set, known := keys[e.Name]
		if !known {
			problems = append(problems, Problem{e.Line, unknownKey(e.Name)})
		} else if err := set(s, e.Value); err != nil {
			problems = append(problems, Problem{e.Line, fmt.Sprintf("%s = %s: %v", e.Name, shown(e.Value), err)})
		} else if e.Name == "user.default" {
			s.UserAt = fmt.Sprintf("%s:%d", file, e.Line)
		}
	}
	slices.SortStableFunc(problems, func(a, b Problem) int { return a.Line - b.Line })
	for i, p := range problems {
		if i == maxWarnings {
			warnings = append(warnings, fmt.Sprintf("%s: and %d more", file, len(problems)-i))
			break
		}
		warnings = append(warnings, fmt.Sprintf("%s:%d: %s", file, p.Line, p.Text))
	}
	return warnings
}

// Decode converts UTF-16, from an editor on Windows, to UTF-8. wide tells whether it was that.
func Decode(data []byte) (text []byte, wide bool) {
	if len(data) < 2 {
		return data, false
	}
	var high int // offset of a unit's high byte
	switch {
	case data[0] == 0xff && data[1] == 0xfe, data[0] != 0 && data[1] == 0:
		high = 1
	case data[0] == 0xfe && data[1] == 0xff, data[0] == 0 && data[1] != 0:
	default:
		return data, false
	}
	units := make([]uint16, len(data)/2)
	for i := range units {
		units[i] = uint16(data[2*i+high])<<8 | uint16(data[2*i+1-high])
	}
	return []byte(string(utf16.Decode(units))), true
}

func unknownKey(name string) string {
	section, key, _ := strings.Cut(name, ".")
	if key == "" {
		return fmt.Sprintf("%s is in no [section]", shown(name))
	}
	for known := range keys {
		if s, k, _ := strings.Cut(known, "."); k == key && s != section && !slices.Contains([]string{"enabled", "hostname"}, key) {
			return fmt.Sprintf("unknown key %s in section [%s]; it belongs in [%s]", shown(key), section, s)
		}
	}
	return fmt.Sprintf("unknown key %s", shown(name))
}

// shown formats a value for a warning: short, and on one line.
func shown(v string) string {
	const most = 60
	if len(v) > most {
		v = v[:most] + "…"
	}
	if v == "" || strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '"' || r == '\ufffd' }) {
		return strconv.Quote(v)
	}
	return v
}

var errBool = errors.New("must be true or false")

func parseBool(v string) (bool, error) {
	switch strings.ToLower(v) {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, errBool
}

func setBool(field func(*Settings) *bool) func(*Settings, string) error {
	return func(s *Settings, v string) error {
		b, err := parseBool(v)
		if err == nil {
			*field(s) = b
		}
		return err
	}
}

func ignoreBool(_ *Settings, v string) error {
	_, err := parseBool(v)
	return err
}

func ignoreText(*Settings, string) error { return nil }

// setTimeout parses milliseconds, as WSL does: decimal, 0x… or 0….
func setTimeout(s *Settings, v string) error {
	n, err := strconv.ParseInt(v, 0, 32)
	if err != nil || n <= 0 {
		return errors.New("must be a number of milliseconds")
	}
	s.InitTimeout = time.Duration(n) * time.Millisecond
	return nil
}

// setUmask parses octal digits, with or without a leading 0.
func setUmask(s *Settings, v string) error {
	n, err := strconv.ParseUint(v, 8, 32)
	if err != nil || n > 0o777 {
		return errors.New("must be octal, as in 022")
	}
	s.Umask = int(n)
	return nil
}

func checkCgroups(_ *Settings, v string) error {
	switch strings.ToLower(v) {
	case "v2":
		return nil
	case "v1":
		return errors.New("distros have control groups of version 2 only")
	}
	return errors.New("must be v2")
}

func checkRoot(_ *Settings, v string) error {
	if !strings.HasPrefix(v, "/") {
		return errors.New("must be an absolute path")
	}
	return nil
}

func setHostname(s *Settings, v string) error {
	if len(v) > 63 || strings.Trim(v, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") != "" ||
		strings.HasPrefix(v, "-") || strings.HasPrefix(v, ".") || v == "" {
		return errors.New("must be letters, digits, -, . and _, at most 63")
	}
	s.Hostname = v
	return nil
}

func setUser(s *Settings, v string) error {
	if v == "" || strings.ContainsAny(v, ":\n\x00/") {
		return errors.New("is no user name")
	}
	s.User = v
	return nil
}
