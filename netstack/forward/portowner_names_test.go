package forward

import "testing"

func TestWindowsProgram(t *testing.T) {
	for image, want := range map[string]string{
		"wslrelay.exe": "WSL, for a program in one of its distros (wslrelay.exe, process 12)",
		"Nginx.exe":    "Nginx.exe (process 12)",
		"":             "process 12, of another user or a service",
	} {
		if got := windowsProgram(image, 12); got != want {
			t.Errorf("%q is named %q, want %q", image, got, want)
		}
	}
}
