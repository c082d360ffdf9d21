// Package converge makes the distros of a profile what its file says: it installs what is
// missing, changes settings, and provisions. It is 'lsub up' as a Go API, over package distro.
//
//	c := converge.New(converge.Config{Service: s, Machine: m, Dir: dir})
//	result, err := c.Up(ctx, p, converge.Options{Tell: func(e converge.Event) { … }})
//
// # What is compared
//
// Settings, packages and files are compared with what the distro has. A step leaves a mark in
// the distro when it has succeeded, /var/lib/lsub/up/step-HASH or in the user's state
// directory, which the same process writes that has waited for the script. The hash is that of
// the script. So a step that had finished is not run again, whenever lsub is killed; and marks
// go the way of the distro's files, into a clone, and back with a snapshot (ADR 31).
//
// # What a distro says
//
// The distro's answers are lines of its own root's making. They say what is done, never what
// is run on the host, and their texts are made harmless before they are shown.
package converge
