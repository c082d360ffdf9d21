package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// machine is where a run took place, and what was measured.
type machine struct {
	CPU        string `json:"cpu"`
	CPUs       int    `json:"cpus"`
	MemoryMiB  string `json:"memory_mib"`
	OS         string `json:"os"`
	Kernel     string `json:"kernel"`
	LoadBefore string `json:"load_before"` // averages of 1, 5 and 15 minutes
	LoadAfter  string `json:"load_after"`

	Lsub        string `json:"lsub"`
	Commit      string `json:"commit"` // of the work tree, with "-dirty" where it has changes
	QEMU        string `json:"qemu"`
	Accel       string `json:"accel,omitempty"` // QEMU's, once a VM ran
	GuestKernel string `json:"guest_kernel,omitempty"`
	GuestMiB    int64  `json:"guest_memory_mib,omitempty"`
	SSH         string `json:"ssh,omitempty"`
}

func (b *bench) machine() machine {
	version, err := b.main.output("version")
	if err != nil {
		version = err.Error()
	}
	return machine{
		CPU: field("/proc/cpuinfo", "model name"), CPUs: runtime.NumCPU(),
		MemoryMiB: mib(field("/proc/meminfo", "MemTotal")),
		OS:        strings.Trim(field("/etc/os-release", "PRETTY_NAME"), `"`), Kernel: content("/proc/sys/kernel/osrelease"),
		LoadBefore: load(), Lsub: version,
		Commit: said("git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"),
		QEMU:   said("qemu-system-"+map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH], "--version"),
		SSH:    said("ssh", "-V"),
	}
}

// sawVM notes what the VM that runs is.
func (m *machine) sawVM(st *status, args []string) {
	m.GuestKernel, m.GuestMiB = st.Kernel, st.Memory.Total>>20
	for i, arg := range args {
		if arg == "-accel" && i+1 < len(args) {
			m.Accel, _, _ = strings.Cut(args[i+1], ",")
		}
	}
}

func (m *machine) guest() string {
	if m.GuestKernel == "" {
		return ""
	}
	return ", " + m.Accel + ", guest Linux " + m.GuestKernel
}

// said is the first line of what a program says about itself, or "".
func said(program string, args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, _ := exec.CommandContext(ctx, program, args...).CombinedOutput()
	line, _, _ := bytes.Cut(out, []byte("\n"))
	return string(bytes.TrimSpace(line))
}

func content(file string) string {
	b, _ := os.ReadFile(file)
	return strings.TrimSpace(string(b))
}

// field is the value of the first line "KEY: VALUE" or "KEY=VALUE" of a file.
func field(file, key string) string {
	for line := range strings.Lines(content(file)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			rest = strings.TrimLeft(rest, " \t")
			if rest != "" && (rest[0] == ':' || rest[0] == '=') {
				return strings.TrimSpace(rest[1:])
			}
		}
	}
	return ""
}

// load is the machine's load: averages of 1, 5 and 15 minutes.
func load() string {
	words := strings.Fields(content("/proc/loadavg"))
	return strings.Join(words[:min(3, len(words))], " ")
}
