// Package agent is the server in the utility VM. It serves the guest protocol (package
// guest), and runs distros as containers of namespaces.
//
// A distro is a btrfs subvolume that starts on first use, in its own pid, mount, uts, ipc
// and cgroup namespaces. Its PID 1 is its systemd, or a small init of lsub's (package
// distroinit). A command enters a running distro through an OS thread that lives in those
// namespaces (package nsthread), so entering costs one fork.
//
// guest/lsubinit, PID 1 of the VM, opens an [Agent] and serves it until the VM ends:
//
//	a, err := agent.Open(agent.Config{Version: version, Data: "/data"})
//	if err != nil {
//		return err
//	}
//	go a.ServeControl(control)
//	return a.ServeStreams(streams)
//
// This package has the life cycle of a distro (start, idle, stop) and the serving of the
// protocol. The packages below it have one subject each, and do not know it: store keeps
// files, archive packs them, account finds users, cgroup limits processes.
//
// Lock order: the files of a distro (withFilesLocked), then Agent.mu, then distro.mu. No
// mutex is held while something in a distro may hang.
//
// The package is Linux only.
package agent
