//go:build darwin && cgo

package vz

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"sync"

	"github.com/Code-Hex/vz/v3"
	"golang.org/x/sys/unix"
)

var (
	_ Framework = framework{}
	_ Machine   = (*machine)(nil)
)

// New returns a driver. It does no I/O; see [Driver.Check].
func New(opts Options) *Driver { return NewWith(framework{}, opts) }

// framework is Virtualization.framework. What this file does beyond passing things on, no
// test sees before it runs on a Mac: so it is little.
type framework struct{}

func (framework) Facts() Facts {
	f := Facts{
		Nested:    vz.IsNestedVirtualizationSupported(),
		MaxCPUs:   int(vz.VirtualMachineConfigurationMaximumAllowedCPUCount()),
		MaxMemory: int64(min(vz.VirtualMachineConfigurationMaximumAllowedMemorySize(), math.MaxInt64)),
		Kernels:   []KernelFormat{kernelFormat},
		Rosetta:   rosetta(),
	}
	if v, err := unix.Sysctl("kern.osproductversion"); err == nil {
		f.Version = v
	}
	if n, err := unix.SysctlUint32("kern.hv_support"); err == nil {
		f.Supported = n != 0
	}
	return f
}

// Check validates a VM whose kernel is this program: the framework only looks whether the
// file exists.
func (framework) Check() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	loader, err := vz.NewLinuxBootLoader(exe)
	if err != nil {
		return wrap(err)
	}
	config, err := vz.NewVirtualMachineConfiguration(loader, 1, vz.VirtualMachineConfigurationMinimumAllowedMemorySize())
	if err != nil {
		return wrap(err)
	}
	return validate(config)
}

func validate(config *vz.VirtualMachineConfiguration) error {
	if ok, err := config.Validate(); err != nil {
		return wrap(err)
	} else if !ok {
		return errors.New("the framework finds the VM's settings invalid, and does not say why")
	}
	return nil
}

// wrap makes the binding's errors into those of this package.
func wrap(err error) error {
	var e *vz.NSError
	switch {
	case errors.As(err, &e):
		return &Error{Domain: e.Domain, Code: e.Code, Description: e.LocalizedDescription, Details: e.UserInfo}
	case errors.Is(err, vz.ErrUnsupportedOSVersion), errors.Is(err, vz.ErrBuildTargetOSVersion):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// kept are the files of network cards. The framework uses their descriptors without a copy of
// its own, and nothing tells when it is done with them. If one were closed, its number could
// become that of another file, into which frames would go.
var kept struct {
	sync.Mutex
	files []*os.File
}

func (framework) NewMachine(s *Settings) (Machine, error) {
	if s.Card != nil {
		kept.Lock()
		kept.files = append(kept.files, s.Card.File)
		kept.Unlock()
	}
	config, id, err := configuration(s)
	if err != nil {
		return nil, wrap(err)
	}
	if err := validate(config); err != nil {
		return nil, err
	}
	vm, err := vz.NewVirtualMachine(config)
	if err != nil {
		return nil, wrap(err)
	}
	// With room for the states of a start that fails, which nobody takes.
	m := &machine{vm: vm, states: make(chan State, 16)}
	go m.follow()
	return withSaving(m, config, id), nil
}

// configuration makes the framework's objects of the settings, and returns the machine's
// identifier.
func configuration(s *Settings) (*vz.VirtualMachineConfiguration, []byte, error) {
	options := []vz.LinuxBootLoaderOption{vz.WithCommandLine(s.CommandLine)}
	if s.Initrd != "" {
		options = append(options, vz.WithInitrd(s.Initrd))
	}
	loader, err := vz.NewLinuxBootLoader(s.Kernel, options...)
	if err != nil {
		return nil, nil, err
	}
	config, err := vz.NewVirtualMachineConfiguration(loader, s.CPUs, s.Memory)
	if err != nil {
		return nil, nil, err
	}
	id, err := setPlatform(config, s)
	if err != nil {
		return nil, nil, fmt.Errorf("platform: %w", err)
	}
	for _, set := range []struct {
		what string
		set  func(*vz.VirtualMachineConfiguration, *Settings) error
	}{
		{"console", setConsole}, {"disks", setDisks}, {"network card", setCard}, {"shares", setShares},
		{"vsock, entropy and balloon", setAlways},
	} {
		if err := set.set(config, s); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", set.what, err)
		}
	}
	return config, id, nil
}

func setPlatform(config *vz.VirtualMachineConfiguration, s *Settings) ([]byte, error) {
	var id *vz.GenericMachineIdentifier
	var err error
	if s.MachineIdentifier != nil {
		id, err = vz.NewGenericMachineIdentifierWithData(s.MachineIdentifier)
	} else {
		id, err = vz.NewGenericMachineIdentifier()
	}
	if err != nil {
		return nil, err
	}
	platform, err := vz.NewGenericPlatformConfiguration(vz.WithGenericMachineIdentifier(id))
	if err != nil {
		return nil, err
	}
	if s.Nested {
		if err := platform.SetNestedVirtualizationEnabled(true); err != nil {
			return nil, err
		}
	}
	config.SetPlatformVirtualMachineConfiguration(platform)
	return id.DataRepresentation(), nil
}

func setConsole(config *vz.VirtualMachineConfiguration, s *Settings) error {
	file, err := vz.NewFileSerialPortAttachment(s.Console, true)
	if err != nil {
		return err
	}
	port, err := vz.NewVirtioConsoleDeviceSerialPortConfiguration(file)
	if err != nil {
		return err
	}
	config.SetSerialPortsVirtualMachineConfiguration([]*vz.VirtioConsoleDeviceSerialPortConfiguration{port})
	return nil
}

func setDisks(config *vz.VirtualMachineConfiguration, s *Settings) error {
	caching := map[string]vz.DiskImageCachingMode{"cached": vz.DiskImageCachingModeCached}
	synchronization := map[string]vz.DiskImageSynchronizationMode{"fsync": vz.DiskImageSynchronizationModeFsync}
	var disks []vz.StorageDeviceConfiguration
	for _, d := range s.Disks {
		image, err := vz.NewDiskImageStorageDeviceAttachmentWithCacheAndSync(d.Path, d.ReadOnly, caching[d.Caching], synchronization[d.Synchronization])
		if err != nil {
			return fmt.Errorf("%s: %w", d.Path, err)
		}
		disk, err := vz.NewVirtioBlockDeviceConfiguration(image)
		if err != nil {
			return fmt.Errorf("%s: %w", d.Path, err)
		}
		if d.Identifier != "" {
			if err := disk.SetBlockDeviceIdentifier(d.Identifier); err != nil {
				return fmt.Errorf("%s: %w", d.Path, err)
			}
		}
		disks = append(disks, disk)
	}
	config.SetStorageDevicesVirtualMachineConfiguration(disks)
	return nil
}

func setCard(config *vz.VirtualMachineConfiguration, s *Settings) error {
	if s.Card == nil {
		return nil
	}
	frames, err := vz.NewFileHandleNetworkDeviceAttachment(s.Card.File)
	if err != nil {
		return err
	}
	if err := frames.SetMaximumTransmissionUnit(s.Card.MTU); err != nil {
		return err
	}
	card, err := vz.NewVirtioNetworkDeviceConfiguration(frames)
	if err != nil {
		return err
	}
	addr, err := net.ParseMAC(s.Card.MAC)
	if err != nil {
		return err
	}
	mac, err := vz.NewMACAddress(addr)
	if err != nil {
		return err
	}
	card.SetMACAddress(mac)
	config.SetNetworkDevicesVirtualMachineConfiguration([]*vz.VirtioNetworkDeviceConfiguration{card})
	return nil
}

func setShares(config *vz.VirtualMachineConfiguration, s *Settings) error {
	var shares []vz.DirectorySharingDeviceConfiguration
	add := func(tag string, share vz.DirectoryShare) error {
		device, err := vz.NewVirtioFileSystemDeviceConfiguration(tag)
		if err != nil {
			return err
		}
		device.SetDirectoryShare(share)
		shares = append(shares, device)
		return nil
	}
	for _, sh := range s.Shares {
		dir, err := vz.NewSharedDirectory(sh.Dir, sh.ReadOnly)
		if err != nil {
			return fmt.Errorf("%s: %w", sh.Dir, err)
		}
		share, err := vz.NewSingleDirectoryShare(dir)
		if err != nil {
			return fmt.Errorf("%s: %w", sh.Dir, err)
		}
		if err := add(sh.Tag, share); err != nil {
			return fmt.Errorf("%s: %w", sh.Dir, err)
		}
	}
	if s.RosettaTag != "" {
		share, err := rosettaShare()
		if err != nil {
			return fmt.Errorf("rosetta: %w", err)
		}
		if err := add(s.RosettaTag, share); err != nil {
			return fmt.Errorf("rosetta: %w", err)
		}
	}
	config.SetDirectorySharingDevicesVirtualMachineConfiguration(shares)
	return nil
}

// setAlways adds the devices that each VM has.
func setAlways(config *vz.VirtualMachineConfiguration, _ *Settings) error {
	vsock, err := vz.NewVirtioSocketDeviceConfiguration()
	if err != nil {
		return err
	}
	config.SetSocketDevicesVirtualMachineConfiguration([]vz.SocketDeviceConfiguration{vsock})
	entropy, err := vz.NewVirtioEntropyDeviceConfiguration()
	if err != nil {
		return err
	}
	config.SetEntropyDevicesVirtualMachineConfiguration([]*vz.VirtioEntropyDeviceConfiguration{entropy})
	balloon, err := vz.NewVirtioTraditionalMemoryBalloonDeviceConfiguration()
	if err != nil {
		return err
	}
	config.SetMemoryBalloonDevicesVirtualMachineConfiguration([]vz.MemoryBalloonDeviceConfiguration{balloon})
	return nil
}

// machine is a VM of the framework.
type machine struct {
	vm     *vz.VirtualMachine
	states chan State
}

// follow passes on the states until the last.
func (m *machine) follow() {
	for s := range m.vm.StateChangedNotify() {
		m.states <- State(s) // the numbers are Apple's in both
		if s == vz.VirtualMachineStateStopped || s == vz.VirtualMachineStateError {
			return
		}
	}
}

func (m *machine) States() <-chan State { return m.states }
func (m *machine) Start() error         { return wrap(m.vm.Start()) }
func (m *machine) Stop() error          { return wrap(m.vm.Stop()) }
func (m *machine) Pause() error         { return wrap(m.vm.Pause()) }
func (m *machine) Resume() error        { return wrap(m.vm.Resume()) }

func (m *machine) SetMemory(size uint64) {
	for _, d := range m.vm.MemoryBalloonDevices() {
		if b := vz.AsVirtioTraditionalMemoryBalloonDevice(d); b != nil {
			b.SetTargetVirtualMachineMemorySize(size)
		}
	}
}

func (m *machine) vsock() (*vz.VirtioSocketDevice, error) {
	devices := m.vm.SocketDevices()
	if len(devices) == 0 {
		return nil, errors.New("the framework's machine has no vsock device")
	}
	return devices[0], nil
}

func (m *machine) Connect(port uint32) (net.Conn, error) {
	d, err := m.vsock()
	if err != nil {
		return nil, err
	}
	c, err := d.Connect(port)
	if err != nil {
		return nil, wrap(err) // and no net.Conn that holds a nil
	}
	return c, nil
}

func (m *machine) Listen(port uint32) (net.Listener, error) {
	d, err := m.vsock()
	if err != nil {
		return nil, err
	}
	l, err := d.Listen(port)
	if err != nil {
		return nil, wrap(err)
	}
	return l, nil
}
