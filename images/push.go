package images

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/lsub/lsub/hint"
)

// PushRef reads where a container image is to go: oci:REGISTRY/REPOSITORY:TAG.
func PushRef(text string) (Ref, error) {
	ref, err := parseOCI(text)
	if err != nil {
		return Ref{}, err
	}
	if _, err := name.NewTag(text); err != nil {
		return Ref{}, hint.New(fmt.Errorf("%q has a digest, which nobody knows before", text), "write oci:REGISTRY/REPOSITORY:TAG")
	}
	if !namesRegistry(text) {
		return Ref{}, hint.New(fmt.Errorf("%q names no registry to push to", text),
			"write oci:REGISTRY/REPOSITORY:TAG; for Docker Hub, oci:docker.io/USER/"+path.Base(text))
	}
	return ref, nil
}

// namesRegistry tells whether a name begins with a registry. One that does not
// is of Docker Hub's, as docker has it: well for what comes from there, but no place
// to put a distro by mistake.
func namesRegistry(text string) bool {
	host, _, more := strings.Cut(text, "/")
	return more && (strings.ContainsAny(host, ".:") || host == "localhost")
}

// withContext ends requests with ctx that have a context of their own.
type withContext struct {
	ctx  context.Context
	base http.RoundTripper
}

func (t withContext) RoundTrip(r *http.Request) (*http.Response, error) {
	return t.base.RoundTrip(r.WithContext(t.ctx))
}

// mayPush asks the registry whether it will take an image, before the work of
// making one.
func mayPush(ctx context.Context, tag name.Tag, reg *registry, progress Progress) error {
	progress.report(Step{Text: "asking " + tag.RegistryStr()})
	if err := remote.CheckPushPermission(tag, authn.DefaultKeychain, withContext{ctx, reg.http}); err != nil {
		return fmt.Errorf("push to %s: %w", tag, reg.explainPush(ctx, err))
	}
	return nil
}

// push puts an image into a registry, with the credentials of docker or podman.
func push(ctx context.Context, tag name.Tag, reg *registry, img v1.Image, progress Progress) error {
	step := Step{Text: "pushing to " + tag.RegistryStr(), Bytes: true}
	progress.report(step)
	updates := make(chan v1.Update, 16)
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		for u := range updates { // remote.Write closes it
			if u.Error == nil {
				step.Done, step.Total = u.Complete, u.Total
				progress.report(step)
			}
		}
	}()
	err := remote.Write(tag, img, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithTransport(reg.http), remote.WithUserAgent("lsub"), remote.WithProgress(updates))
	<-reported
	if err != nil {
		return fmt.Errorf("push to %s: %w", tag, reg.explainPush(ctx, err))
	}
	return nil
}

// explainPush says in the user's words why a registry did not take something.
func (r *registry) explainPush(ctx context.Context, err error) error {
	host := r.ref.Context().RegistryStr()
	var answer *transport.Error
	if ctx.Err() == nil && errors.As(err, &answer) {
		login := "log in with 'docker login " + host + "' or 'podman login " + host + "'"
		switch answer.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusMethodNotAllowed:
			return hint.New(fmt.Errorf("%s does not let you push to %s", host, r.ref.Context().RepositoryStr()), login)
		case http.StatusNotFound:
			return hint.New(fmt.Errorf("%s has no repository %s", host, r.ref.Context().RepositoryStr()), "make it there, or check its name")
		}
	}
	return r.explain(ctx, err)
}
