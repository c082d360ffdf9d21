package wslconfig

import "strings"

func init() {
	const (
		kernel = "lsub brings its kernel with it; modules are loaded as distros need them"
		debug  = "'lsub logs' has the console of the VM"
		bound  = "lsub's limits of time are fixed"
		disk   = "lsub's data disk grows as it is used, and gives space back by itself"
		bridge = "lsub has no bridged network"
		device = "lsub chooses the VM's devices itself"
		gui    = "lsub shows no windows and has no GPU in the VM"
	)
	add("wsl2.memory", size("memory"))
	add("wsl2.processors", number("cpus"))
	add("wsl2.nestedVirtualization", truth("nested", "true", "false", ""))
	add("wsl2.vmIdleTimeout", milliseconds("idle.vm"))
	add("general.instanceIdleTimeout", milliseconds("idle.distro"))
	add("wsl2.localhostForwarding", truth("ports.auto", "true", "false", ""))
	add("wsl2.hostFileSystemAccess", truth("mounts", "", "[]", "distros see the home folder, read-only, by default; mounts shares more"))
	add("experimental.ignoredPorts", ports)
	add("experimental.hostAddressLoopback", truth("network.host_access", "true", "", "the host reaches distros by its other addresses only with ports.host_address"))

	add("wsl2.kernel", none(kernel))
	add("wsl2.kernelModules", none(kernel))
	add("wsl2.loadDefaultKernelModules", none(kernel))
	add("wsl2.loadKernelModules", none(kernel))
	add("wsl2.kernelCommandLine", none("lsub's kernel takes no other arguments; /etc/sysctl.d of a distro holds kernel settings"))
	add("wsl2.swap", none("lsub's VM has no swap; a distro's limits.memory bounds what it uses"))
	add("wsl2.swapFile", none("lsub's VM has no swap"))
	add("wsl2.guiApplications", none(gui))
	add("wsl2.gpuSupport", none(gui))
	add("wsl2.systemDistro", none("lsub has no system distro"))
	add("wsl2.debugConsole", none(debug))
	add("wsl2.debugConsoleLogFile", none(debug))
	add("wsl2.earlyBootLogging", none(debug))
	add("wsl2.kernelDebugPort", none(debug))
	add("wsl2.kernelBootTimeout", none(bound))
	add("wsl2.distributionStartTimeout", none(bound))
	add("wsl2.mountDeviceTimeout", none(bound))
	add("wsl2.virtio", none(device))
	add("wsl2.virtio9p", none(device))
	add("wsl2.virtiofs", none("lsub uses virtio-fs where the VM has it; a mount's carrier chooses"))
	add("wsl2.hardwarePerformanceCounters", none(device))
	add("wsl2.networkingMode", mode)
	add("wsl2.vmSwitch", none(bridge))
	add("wsl2.macAddress", none(bridge))
	add("wsl2.dhcp", none(bridge))
	add("wsl2.dhcpTimeout", none(bridge))
	add("wsl2.ipv6", none("lsub's network is IPv4"))
	add("wsl2.dnsProxy", none("lsub answers names as the host does, always; network.dns names other servers"))
	add("wsl2.dnsTunneling", none("lsub answers names as the host does, always; network.dns names other servers"))
	add("wsl2.firewall", none("distros are behind lsub's own network; ports.users and ports.host_address say who may connect"))
	add("wsl2.autoProxy", truth("network.proxy", "auto", "off", ""))
	add("wsl2.defaultVhdSize", none(disk))
	add("wsl2.crashDumpFolder", none("lsub writes no dumps; 'lsub logs' has the console"))
	add("wsl2.maxCrashDumpCount", none("lsub writes no dumps; 'lsub logs' has the console"))
	add("wsl2.safeMode", none("lsub has no safe mode; a new profile has all defaults"))
	add("wsl2.isolateDistroCgroup", none("each distro has its own control group, always"))
	add("wsl2.telemetry", none("lsub sends nothing"))
	add("general.distributionInstallPath", none("LSUB_HOME says where distros are"))
	add("experimental.autoMemoryReclaim", none("lsub gives memory back to the host by itself where the hypervisor can"))
	add("experimental.sparseVhd", none(disk))
	add("experimental.bestEffortDnsParsing", none("lsub answers names as the host does, in every record type"))
	add("experimental.dnsTunnelingIpAddress", none("the name server is the gateway of network.subnet"))
	add("experimental.initialAutoProxyTimeout", none("lsub reads the proxies from the environment, at once"))
	add("experimental.swiotlb", none(device))
	add("experimental.virtioFsAggregateShares", none("each folder that lsub shares is a share of its own"))
	add("experimental.setVersionDebug", none(debug))
	// WSL reads these here too.
	for _, name := range []string{"networkingMode", "dnsTunneling", "firewall", "autoProxy"} {
		add("experimental."+name, keys[strings.ToLower("wsl2."+name)].convert)
	}
}
