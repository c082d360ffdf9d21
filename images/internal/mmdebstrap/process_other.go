//go:build !linux

package mmdebstrap

import "os/exec"

// mmdebstrap runs on Linux only; Debian.Pull says so before it gets here.
func isolate(*exec.Cmd)        {}
func interruptGroup(*exec.Cmd) {}
func killGroup(*exec.Cmd)      {}
