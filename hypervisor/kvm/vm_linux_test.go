package kvm

import (
	"testing"

	"github.com/lsub/lsub/hypervisor/hvtest"
)

const helperEnv = "LSUB_TEST_KVM_HELPER"

func helper() {}

func TestConformance(t *testing.T) {
	needVM(t)
	hvtest.Conformance(t, harness())
}
