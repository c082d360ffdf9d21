// Command init stands in for lsubinit in tests of the build.
package main

func main() { println("lsub stand-in init") }
