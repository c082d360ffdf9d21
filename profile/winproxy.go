package profile

import "strings"

// WindowsProxy returns the proxies of Windows' settings as variables' values, by their names in
// small letters. servers is "host:port" for all protocols, or a list such as
// "http=host:80;https=host:443;socks=host:1080"; bypass is a list of hosts, such as
// "*.example;<local>;10.*". What no_proxy cannot say, such as "<local>" (names without a dot)
// and "10.*", is left out.
// https://learn.microsoft.com/windows/win32/api/winhttp/ns-winhttp-winhttp_current_user_ie_proxy_config
func WindowsProxy(servers, bypass string) map[string]string {
	env := map[string]string{}
	set := func(name, value string) {
		if value != "" && env[name] == "" {
			env[name] = value
		}
	}
	for _, entry := range windowsList(servers) {
		protocol, server, named := strings.Cut(entry, "=")
		switch {
		case !named:
			set("http_proxy", withScheme("http", entry))
			set("https_proxy", withScheme("http", entry))
		case strings.EqualFold(protocol, "http"), strings.EqualFold(protocol, "https"):
			set(strings.ToLower(protocol)+"_proxy", withScheme("http", server))
		case strings.EqualFold(protocol, "socks"):
			set("all_proxy", withScheme("socks5", server))
		}
	}
	if len(env) == 0 {
		return env
	}
	var no []string
	for _, host := range windowsList(bypass) {
		domain, wild := strings.CutPrefix(host, "*.")
		switch {
		case host == "*":
			return map[string]string{}
		case host == "" || host[0] == '<' || strings.Contains(domain, "*"):
		case wild:
			no = append(no, "."+domain)
		default:
			no = append(no, host)
		}
	}
	set("no_proxy", strings.Join(no, ","))
	return env
}

// windowsList divides a list at semicolons and blanks.
func windowsList(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune("; \t\r\n", r) })
}

func withScheme(scheme, server string) string {
	if server == "" || strings.Contains(server, "://") {
		return server
	}
	return scheme + "://" + server
}
