package main

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
)

// kvmFile has what was measured last on a machine with KVM.
const kvmFile = "e2e/bench/kvm.json"

//go:embed kvm.json
var kvmJSON []byte

// kvmFigures are the medians on a machine with KVM.
type kvmFigures struct {
	Date    time.Time          `json:"date"`
	CPU     string             `json:"cpu"`
	CPUs    int                `json:"cpus"`
	QEMU    string             `json:"qemu"`
	Commit  string             `json:"commit"`
	Medians map[string]float64 `json:"medians"` // by the figure's name
}

func readKVM() (k kvmFigures, err error) {
	if err := json.Unmarshal(kvmJSON, &k); err != nil {
		return k, fmt.Errorf("%s: %w", kvmFile, err)
	}
	return k, nil
}

// label heads the column.
func (k *kvmFigures) label() string {
	if len(k.Medians) == 0 {
		return "KVM: not measured yet"
	}
	return fmt.Sprintf("KVM, measured %s on %d × %s", k.Date.Format(time.DateOnly), k.CPUs, k.CPU)
}

// keepKVM writes the medians of this run for the column.
func (r *report) keepKVM() error {
	if r.Machine.Accel != "kvm" {
		return errors.New("-kvm: the VM ran without KVM, so the column stays as it was")
	}
	k := kvmFigures{Date: r.Date, CPU: r.Machine.CPU, CPUs: r.Machine.CPUs, QEMU: r.Machine.QEMU, Commit: r.Machine.Commit, Medians: map[string]float64{}}
	for _, f := range r.Figures {
		k.Medians[f.Name] = f.Median
	}
	text, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(kvmFile, append(text, '\n'), 0o644)
}
