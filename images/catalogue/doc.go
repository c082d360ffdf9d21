// Package catalogue lists the images that servers offer, and finds the one that
// a short name such as "alma" or "fedora:42" means.
//
// A [Catalogue] is such a list: [WSL] reads WSL's manifests, [Simplestreams] an
// image server's. [Online] asks several of them and remembers the answers.
// [Resolve] finds a name among the offers; [Offer.Ref] is what package images
// installs.
//
//	online := &catalogue.Online{CacheDir: dir, Catalogues: catalogue.Defaults(nil)}
//	offers := catalogue.Offers(online.List(ctx, false))
//	offer, err := catalogue.Resolve(offers, "alma", "")
//	ref, err := offer.Ref()
//
// Servers are asked over https only. What they say is checked: an offer has a
// printable name, an https address and a sha256 sum, or it is left out.
package catalogue
