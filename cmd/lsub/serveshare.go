package main

import (
	"log/slog"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/share/shareproc"
)

// serveShareCommand is the process that serves a shared folder. The supervisor starts it;
// users do not call it.
func (a *app) serveShareCommand() *cli.Command {
	return &cli.Command{
		Name: "serve-share", Hidden: true,
		Action: func(*cli.Context) error {
			boundMemory()
			return shareproc.Main(slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: a.level})))
		},
	}
}
