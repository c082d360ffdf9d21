package kvm

import (
	"errors"
	"strings"

	"github.com/lsub/lsub/hint"
)

// nestedFacts are the facts about the machine that decide on VMs in the VM.
type nestedFacts struct {
	arch   string // GOARCH of the guest
	accel  Accel
	module string // of KVM: kvm_amd or kvm_intel; "" for none
	param  string // the module's parameter "nested"
}

// checkNested returns why the guest can run no VMs itself, or nil. QEMU emulates AMD's
// virtualization and arm64's EL2.
func checkNested(f nestedFacts) error {
	switch {
	case f.accel == AccelTCG:
		return nil
	case f.arch != "amd64":
		return errors.New("VMs in the VM need KVM's support, which QEMU does not use on this processor")
	case f.module == "":
		return errors.New("KVM runs no VMs in VMs here: neither kvm_amd nor kvm_intel is loaded")
	}
	switch strings.TrimSpace(f.param) {
	case "1", "Y":
		return nil
	}
	return hint.New(errors.New("KVM runs no VMs in VMs here: its module "+f.module+" was loaded with nested=0"),
		"put 'options "+f.module+" nested=1' into a file in /etc/modprobe.d, and restart this machine")
}
