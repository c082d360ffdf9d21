package main

import (
	"bytes"
	_ "embed"
	"image"
	"image/color"
	"os"
	"regexp"
	"strconv"
	"time"

	"github.com/tc-hib/winres"
	"github.com/tc-hib/winres/version"
)

// manifest has Windows take long paths and UTF-8 from this program.
//
//go:embed lsub.manifest
var manifest []byte

// english is Windows' number of US English.
const english = 0x409

// addResources gives a Windows program its manifest, icon and version.
func addResources(program, semver string, at time.Time) error {
	in, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	var rs winres.ResourceSet
	if err := rs.Set(winres.RT_MANIFEST, winres.ID(1), english, manifest); err != nil {
		return err
	}
	icon, err := winres.NewIconFromImages([]image.Image{drawIcon(256), drawIcon(64), drawIcon(48), drawIcon(32), drawIcon(16)})
	if err != nil {
		return err
	}
	if err := rs.SetIcon(winres.ID(1), icon); err != nil {
		return err
	}
	v := version.Info{FileVersion: numbers(semver), ProductVersion: numbers(semver), Timestamp: at}
	for key, value := range map[string]string{
		version.ProductName: "lsub", version.ProductVersion: semver, version.FileVersion: semver, version.FileDescription: summary,
		version.OriginalFilename: "lsub.exe", version.LegalCopyright: "the lsub developers, " + license,
	} {
		if err := v.Set(english, key, value); err != nil {
			return err
		}
	}
	rs.SetVersionInfo(v)
	var out bytes.Buffer
	if err := rs.WriteToEXE(&out, bytes.NewReader(in)); err != nil {
		return err
	}
	return os.WriteFile(program, out.Bytes(), 0o755)
}

// numbers are those that a version begins with, as Windows has them.
func numbers(semver string) (n [4]uint16) {
	for i, m := range regexp.MustCompile(`^(\d+)\.(\d+)\.(\d+)`).FindStringSubmatch(semver) {
		if i > 0 {
			v, _ := strconv.ParseUint(m, 10, 16)
			n[i-1] = uint16(v)
		}
	}
	return n
}

// drawIcon draws a prompt on a dark tile, of some pixels in width.
func drawIcon(size int) image.Image {
	const samples = 4 // per pixel, in each direction
	img := image.NewNRGBA(image.Rect(0, 0, size, size))
	for y := range size {
		for x := range size {
			tile, ink := 0, 0
			for sy := range samples {
				for sx := range samples {
					// In 256ths of the width.
					u := (float64(x) + (float64(sx)+0.5)/samples) * 256 / float64(size)
					v := (float64(y) + (float64(sy)+0.5)/samples) * 256 / float64(size)
					if inTile(u, v) {
						tile++
						if inPrompt(u, v) {
							ink++
						}
					}
				}
			}
			if tile == 0 {
				continue
			}
			mix := func(back, front int) uint8 { return uint8((back*(tile-ink) + front*ink) / tile) }
			img.SetNRGBA(x, y, color.NRGBA{mix(0x1f, 0xff), mix(0x2a, 0xd1), mix(0x44, 0x66), uint8(tile * 255 / (samples * samples))})
		}
	}
	return img
}

// inTile tells whether a point is in a square with round corners.
func inTile(u, v float64) bool {
	const edge, radius = 12, 48
	near := func(w float64) float64 { return max(edge+radius-w, w-(256-edge-radius), 0) }
	du, dv := near(u), near(v)
	return du*du+dv*dv <= radius*radius
}

// inPrompt tells whether a point is in ">_".
func inPrompt(u, v float64) bool {
	const half = 12 // of a stroke's width
	if v >= 172 && v <= 172+2*half && u >= 132 && u <= 208 {
		return true
	}
	if v < 72 || v > 184 {
		return false
	}
	tip := 116 - abs(v-128)*0.9 // the stroke's middle at this height
	return abs(u-tip) <= half*1.35
}

func abs(f float64) float64 { return max(f, -f) }
