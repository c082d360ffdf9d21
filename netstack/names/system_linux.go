package names

type files struct {
	resolv watched[Resolv]
	hosts  watched[Hosts]
}

func thisHost() System {
	return &files{
		resolv: watched[Resolv]{path: "/etc/resolv.conf", parse: ParseResolvConf},
		hosts:  watched[Hosts]{path: "/etc/hosts", parse: ParseHosts},
	}
}

func (f *files) Resolv() Resolv { return f.resolv.get() }
func (f *files) Hosts() Hosts   { return f.hosts.get() }
