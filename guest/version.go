package guest

// Version is of lsub: the host's program and the VM's agent are built together
// and only talk to their like.
const Version = "0.1.0-dev"
