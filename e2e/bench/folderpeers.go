package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// folderPeers is a VM that has lsub's folders, and beside them those of virtiofsd, of QEMU's
// 9p and of sshfs.
type folderPeers struct {
	b       *bench
	h       *home
	peers   []mount
	closers []func() error
}

const (
	virtiofsdTag = "peer-virtiofsd"
	nineTag      = "peer-9p"
)

func (b *bench) newFolderPeers() (*folderPeers, error) {
	h, err := b.newHome("folders")
	if err != nil {
		return nil, err
	}
	p := &folderPeers{b: b, h: h}
	dir, err := p.dir("9p")
	if err != nil {
		return nil, err
	}
	args := []string{"-fsdev", "local,id=nine,path=" + dir + ",security_model=none", "-device", "virtio-9p-pci,fsdev=nine,mount_tag=" + nineTag}
	p.peers = append(p.peers, mount{ninePeer, "/mnt/9p", dir})
	more, err := p.virtiofsd()
	if err != nil {
		b.say("folders: without virtiofsd: %v", err)
	}
	return p, h.wrapQEMU(append(args, more...))
}

// dir makes a directory of the host.
func (p *folderPeers) dir(name string) (string, error) {
	dir := filepath.Join(p.b.dir, "shared-"+name)
	return dir, os.Mkdir(dir, 0o755)
}

// virtiofsd starts Debian's virtiofsd, and adds a device that it serves.
func (p *folderPeers) virtiofsd() ([]string, error) {
	root, err := p.b.debianPackage("virtiofsd", "trixie")
	if err != nil {
		return nil, err
	}
	dir, err := p.dir("virtiofsd")
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(p.b.dir, "virtiofsd.sock")
	program, err := foreign(root, "usr/libexec/virtiofsd", "--socket-path", socket, "--shared-dir", dir)
	if err != nil {
		return nil, err
	}
	end, err := p.b.serve(program, socket)
	if err != nil {
		return nil, err
	}
	p.closers = append(p.closers, end)
	p.peers = append(p.peers, mount{virtiofsd, "/mnt/virtiofsd", dir})
	return []string{"-chardev", "socket,id=virtiofsd,path=" + socket, "-device", "vhost-user-fs-pci,chardev=virtiofsd,queue-size=1024,tag=" + virtiofsdTag}, nil
}

// foreign is a command of another Debian's program, with the libraries of its own directory.
func foreign(root, program string, args ...string) ([]string, error) {
	libs := filepath.Join(root, "usr/lib", qemuArch()+"-linux-gnu")
	loaders, err := filepath.Glob(filepath.Join(libs, "ld-linux-*.so.*"))
	if err != nil || len(loaders) == 0 {
		return nil, fmt.Errorf("no loader in %s: %w", libs, err)
	}
	return append([]string{loaders[0], "--library-path", libs, filepath.Join(root, program)}, args...), nil
}

// serve starts a program that serves a socket, and returns when the socket is there.
func (b *bench) serve(command []string, socket string) (end func() error, err error) {
	ctx, cancel := context.WithCancel(b.ctx)
	log, err := os.Create(socket + ".log")
	if err != nil {
		cancel()
		return nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	end = func() error { cancel(); <-ended; return nil }
	for deadline := time.Now().Add(10 * time.Second); ; {
		if _, err := os.Stat(socket); err == nil {
			return end, nil
		}
		select {
		case <-ended:
			cancel()
			return nil, fmt.Errorf("it ended: %s", content(log.Name()))
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			end()
			return nil, fmt.Errorf("it does not serve: %s", content(log.Name()))
		}
	}
}

// mounts starts the VM, and returns the directories to measure, the distro's own first.
func (p *folderPeers) mounts() ([]mount, error) {
	if _, err := p.h.lsub("install", "debian?include=fio,git,sshfs", "--name", foldersDistro); err != nil {
		return nil, err
	}
	list := []mount{{name: ownDisk, guest: "/root/own"}}
	for _, ours := range []struct{ name, carrier string }{{virtiofsUs, "virtiofs"}, {streamUs, "stream"}} {
		dir, err := p.dir(ours.carrier)
		if err != nil {
			return nil, err
		}
		if _, err := p.h.lsub("mount", "add", "--writable", "--carrier", ours.carrier, dir); err != nil {
			return nil, err
		}
		list = append(list, mount{ours.name, "/mnt/host" + dir, dir})
	}
	script := "mkdir -p /root/own /mnt/9p /mnt/virtiofsd /mnt/sshfs; modprobe 9pnet_virtio 2>/dev/null || true; mount -t 9p -o trans=virtio,version=9p2000.L,msize=131072 " + nineTag + " /mnt/9p\n"
	if len(p.peers) > 1 {
		script += "mount -t virtiofs " + virtiofsdTag + " /mnt/virtiofsd\n"
	}
	if err := p.root(script); err != nil {
		return nil, err
	}
	if err := p.sshfs(); err != nil {
		p.b.say("folders: without sshfs: %v", err)
	}
	return append(list, p.peers...), nil
}

func (p *folderPeers) root(script string) error {
	_, err := p.h.lsub("exec", "-u", "root", foldersDistro, "--", "sh", "-ec", script)
	return err
}

// sshfs mounts a directory by sshfs in the guest and an SFTP server on the host, which speak
// over lsub exec, as Lima has them speak over ssh.
func (p *folderPeers) sshfs() error {
	root, err := p.b.debianPackage("openssh-sftp-server", "trixie")
	if err != nil {
		return err
	}
	dir, err := p.dir("sshfs")
	if err != nil {
		return err
	}
	command, err := foreign(root, "usr/lib/openssh/sftp-server")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(p.b.ctx)
	server := exec.CommandContext(ctx, command[0], command[1:]...)
	client := p.h.command(ctx, "exec", "-u", "root", foldersDistro, "--", "sshfs", "-f", "-o", "passive", ":"+dir, "/mnt/sshfs")
	requests, toServer, err := os.Pipe()
	if err != nil {
		cancel()
		return err
	}
	answers, toClient, err := os.Pipe()
	if err != nil {
		cancel()
		return err
	}
	server.Stdin, server.Stdout = requests, toClient
	client.Stdin, client.Stdout = answers, toServer
	err = errors.Join(server.Start(), client.Start())
	for _, f := range []*os.File{requests, toServer, answers, toClient} {
		f.Close()
	}
	end := func() error {
		err := p.root("umount /mnt/sshfs")
		cancel()
		server.Wait()
		client.Wait()
		return err
	}
	if err == nil {
		err = p.root("for i in $(seq 300); do mountpoint -q /mnt/sshfs && exit; sleep 0.1; done; exit 1")
	}
	if err != nil {
		return errors.Join(err, end())
	}
	p.closers = append(p.closers, end)
	p.peers = append(p.peers, mount{sshfsPeer, "/mnt/sshfs", dir})
	return nil
}

// close ends the VM and the peers, the last first.
func (p *folderPeers) close() error {
	var errs []error
	for i := len(p.closers) - 1; i >= 0; i-- {
		if i == 0 {
			errs = append(errs, p.h.shutdown())
		}
		errs = append(errs, p.closers[i]())
	}
	return errors.Join(errs...)
}

// wrapQEMU has a home's VMs get more arguments. QEMU is started through a script that adds
// them, so that lsub itself is what users have.
func (h *home) wrapQEMU(args []string) error {
	qemu, err := exec.LookPath("qemu-system-" + qemuArch())
	if err != nil {
		return err
	}
	script := fmt.Sprintf("#!/bin/sh\ncase $1 in\n-name) exec %s \"$@\" %s ;;\nesac\nexec %[1]s \"$@\"\n", qemu, strings.Join(args, " "))
	dir := filepath.Join(h.dir, "with-peers")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, filepath.Base(qemu)), []byte(script), 0o700); err != nil {
		return err
	}
	h.env = append(h.env, "PATH="+dir+":"+os.Getenv("PATH"))
	return nil
}
