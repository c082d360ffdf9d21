package profile

import (
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// HostName is the host as the VM knows it.
const hostName = "host.lsub.internal"

// ProxyEnv returns the variables by which programs in a distro find the
// proxies: those of the user's environment, which is the host's as it is now,
// or the profile's. A proxy on the host's loopback is one on the host to the VM;
// where the profile closes that, there is none.
func (n *Network) ProxyEnv(getenv func(string) string) []string {
	var set [4]string
	names := [...]string{"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
	switch n.Proxy.Mode {
	case ProxyAuto:
		for i, name := range names {
			// Small letters come first, as in curl.
			if set[i] = getenv(name); set[i] == "" {
				set[i] = getenv(strings.ToUpper(name))
			}
		}
	case ProxySet:
		set = [...]string{n.Proxy.HTTP, n.Proxy.HTTPS, n.Proxy.All, n.Proxy.No}
	}
	var env []string
	add := func(name, value string) {
		env = append(env, name+"="+value, strings.ToUpper(name)+"="+value)
	}
	for i, proxy := range set[:3] {
		if seen, ok := proxyFromVM(proxy, n.HostAccess); ok {
			add(names[i], seen)
		}
	}
	if no := set[3]; len(env) > 0 {
		// The VM's own names mean nothing to a proxy.
		if no != "*" {
			no = strings.TrimPrefix(no+",.lsub.internal", ",")
		}
		add(names[3], no)
	}
	return env
}

// proxyFromVM is a proxy's address as the VM reaches it.
func proxyFromVM(proxy string, hostAccess bool) (string, bool) {
	if proxy == "" {
		return "", false
	}
	full, bare := proxy, !strings.Contains(proxy, "://")
	if bare {
		full = "http://" + proxy
	}
	u, err := url.Parse(full)
	if err != nil || !isLoopback(u.Hostname()) {
		return proxy, true
	}
	if !hostAccess {
		return "", false
	}
	if port := u.Port(); port != "" {
		u.Host = net.JoinHostPort(hostName, port)
	} else {
		u.Host = hostName
	}
	if full = u.String(); bare {
		full = strings.TrimPrefix(full, "http://")
	}
	return full, true
}

func isLoopback(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && (a.Unmap().IsLoopback() || a.IsUnspecified())
}
