package share

// Config describes a share.
type Config struct {
	Dir      string // on the host
	Writable bool
	// GuestUID and GuestGID are the guest's user and group to whom the host user's files
	// belong.
	GuestUID, GuestGID uint32
	// Metadata keeps owners and device numbers that the host cannot keep in extended
	// attributes. Without it, the guest gets EPERM.
	Metadata bool
	// MaxFDs bounds the descriptors that the server keeps open; 0 derives it from the
	// process's limit.
	MaxFDs int
	// MaxWatches bounds the directories that are watched; 0 derives it from what the kernel
	// gives a user.
	MaxWatches int
	// Epoch makes the numbers of nodes and files differ from those of an earlier server of
	// the same guest's mount: it counts the servers.
	Epoch uint32
}
