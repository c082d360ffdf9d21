package forward

import (
	"fmt"
	"strings"
)

// theirs are programs of Windows that listen for somebody else, by their names in small letters.
var theirs = map[string]string{
	"wslrelay.exe":           "WSL, for a program in one of its distros",
	"wslservice.exe":         "WSL",
	"com.docker.backend.exe": "Docker Desktop, for a container",
	"vpnkit.exe":             "Docker Desktop, for a container",
	"vmcompute.exe":          "Hyper-V",
	"svchost.exe":            "a service of Windows, such as a forwarding of 'netsh interface portproxy'",
	"system":                 "Windows itself, such as its web server",
}

// windowsProgram names a program of Windows for people; image is its file's name, or "".
func windowsProgram(image string, pid uint32) string {
	if image == "" {
		return fmt.Sprintf("process %d, of another user or a service", pid)
	}
	if owner := theirs[strings.ToLower(image)]; owner != "" {
		return fmt.Sprintf("%s (%s, process %d)", owner, image, pid)
	}
	return fmt.Sprintf("%s (process %d)", image, pid)
}
