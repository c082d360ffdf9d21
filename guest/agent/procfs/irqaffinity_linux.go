package procfs

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// vsockDriver is the driver's directory, which has a link to the VM's vsock device.
const vsockDriver = "/sys/bus/virtio/drivers/vmw_vsock_virtio_transport"

// VsockCPU returns the CPU that handles the interrupts of the vsock device's receive
// queue, or -1 where it is unknown.
func VsockCPU() int {
	devices, _ := filepath.Glob(filepath.Join(vsockDriver, "virtio*"))
	f, err := os.Open("/proc/interrupts")
	if err != nil || len(devices) == 0 {
		return -1
	}
	defer f.Close()
	number := ""
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		// Each queue has its own interrupt, or all share one.
		switch strings.TrimPrefix(fields[len(fields)-1], filepath.Base(devices[0])) {
		case "-rx", "-virtqueues":
			number = strings.TrimSuffix(fields[0], ":")
		}
	}
	b, err := os.ReadFile("/proc/irq/" + number + "/effective_affinity_list")
	if err != nil {
		return -1
	}
	cpu, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return -1
	}
	return cpu
}
