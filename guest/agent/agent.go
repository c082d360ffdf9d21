// Package agent is the server in the utility VM: it serves the guest protocol
// (package guest), keeps images and distros on the data disk, and runs distros
// as containers of namespaces.
//
// A distro is a btrfs subvolume, started on first use: its own pid, mount,
// uts, ipc and cgroup namespaces, with its systemd as PID 1 where it has one,
// else a small init of ours (package distroinit). A command enters a running distro
// through an OS thread that lives in those namespaces and does nothing but
// start processes, so that entering costs one fork.
//
// guest/lsubinit, PID 1 of the VM, opens an [Agent] and serves it until the VM
// ends:
//
//	a, err := agent.Open(agent.Config{Version: version, Data: "/data"})
//	if err != nil {
//		return err
//	}
//	go a.ServeControl(control)
//	return a.ServeStreams(streams)
//
// The package is Linux only.
package agent
