package main

import (
	"bytes"
	"debug/buildinfo"
	"maps"
	"slices"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
)

// billOfMaterials lists what an lsub is made of: its Go modules, as the program itself says, and
// the Debian packages of its guest.
func billOfMaterials(version string, t target, info *buildinfo.BuildInfo, g guestManifest) ([]byte, error) {
	var list []cyclonedx.Component
	list = append(list, cyclonedx.Component{
		BOMRef: "pkg:golang/std@" + info.GoVersion, Type: cyclonedx.ComponentTypeLibrary,
		Name: "std", Version: info.GoVersion, PackageURL: "pkg:golang/std@" + info.GoVersion,
	})
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		url := "pkg:golang/" + m.Path + "@" + m.Version
		list = append(list, cyclonedx.Component{
			BOMRef: url, Type: cyclonedx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: url,
			Properties: &[]cyclonedx.Property{{Name: "go.sum", Value: m.Sum}},
		})
	}
	for _, name := range slices.Sorted(maps.Keys(g.Packages)) {
		url := "pkg:deb/debian/" + name + "@" + g.Packages[name] + "?arch=" + g.Arch + "&distro=" + g.Suite
		list = append(list, cyclonedx.Component{
			BOMRef: url, Type: cyclonedx.ComponentTypeLibrary, Name: name, Version: g.Packages[name], PackageURL: url,
		})
	}
	bom := cyclonedx.NewBOM()
	bom.Metadata = &cyclonedx.Metadata{Component: &cyclonedx.Component{
		BOMRef: "lsub", Type: cyclonedx.ComponentTypeApplication, Name: "lsub", Version: version,
		Properties: &[]cyclonedx.Property{
			{Name: "os", Value: t.os}, {Name: "arch", Value: t.arch}, {Name: "guest:kernel", Value: g.Kernel},
		},
	}}
	bom.Components = &list
	var out bytes.Buffer
	e := cyclonedx.NewBOMEncoder(&out, cyclonedx.BOMFileFormatJSON)
	if err := e.SetPretty(true).Encode(bom); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
