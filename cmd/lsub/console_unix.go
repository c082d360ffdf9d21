//go:build unix

package main

// openConsole has nothing to do: terminals show what programs write.
func openConsole() (undo func()) { return func() {} }

// holdWindow has nothing to do: windows of terminals stay.
func holdWindow() {}

// takeProxies has nothing to do: proxies are in the environment.
func takeProxies() {}
