// Package distroinit makes a process the PID 1 of a distro: it mounts the distro, follows
// the distro's settings, and hands over to its systemd, or stays as a small init of its
// own where the distro has none.
//
// Two processes run this package. The agent calls [Start] and [AwaitReport]. All the rest
// runs in the process that they start, a second one of the same program, whose main
// function calls [Main]:
//
//	cmd, status, err := distroinit.Start(cfg, groupFD, inNamespace) // the agent
//	report, err := distroinit.AwaitReport(status)
//
//	if distroinit.IsInit() { // the other process, first thing in main
//		distroinit.Main()
//		os.Exit(1)
//	}
//
// The two share nothing but the JSON on the socket between them: a [Config] one way, a
// [Report] the other. The package is Linux only.
package distroinit
