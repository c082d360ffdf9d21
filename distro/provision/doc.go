// Package provision runs what a profile's file says of a distro, in the distro: the steps, and
// the probes that tell when it is ready. It knows no registry and starts nothing; who does
// gives it a [Target]. Package converge runs the steps that are run once, and the supervisor
// those that are run at each start of the distro.
//
//	r := provision.Runner{Target: t, Distro: "debian", Tell: func(e provision.Event) { … }}
//	ran, err := r.Step(ctx, step, script, mark)
package provision
