// Package web downloads the parts of images over https. It refuses redirects to anything but
// https, ends answers that stall, and explains a server's failure. It allows plain http and
// untrusted certificates only for registries on this host, if the user asked for that.
package web
