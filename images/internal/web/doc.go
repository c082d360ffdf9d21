// Package web asks servers over https for what images are made of. It follows
// no redirect to anything but https, ends answers that stall, and says why a
// server gave nothing. Plain http and certificates that nobody vouches for are
// allowed for registries on this host alone, where the user asked for that.
package web
