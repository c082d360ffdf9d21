package main

import (
	"math"
	"slices"
	"time"
)

// samples are the values of a figure's runs.
type samples []float64

// add adds a duration in ms.
func (s *samples) add(d time.Duration) { *s = append(*s, float64(d)/1e6) }

// quantile returns the value that a share q of the samples does not exceed, or 0
// for none.
func (s samples) quantile(q float64) float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	at := q * float64(len(s)-1)
	low, part := math.Modf(at)
	i := int(low)
	if i+1 == len(s) {
		return sorted[i]
	}
	return sorted[i] + part*(sorted[i+1]-sorted[i])
}

// summary is what is told of samples.
type summary struct {
	Median float64 `json:"median"`
	P95    float64 `json:"p95,omitempty"` // where there are enough samples for it
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
}

// enoughForP95 is how many samples make a 95th percentile more than the maximum.
const enoughForP95 = 20

func (s samples) summary() summary {
	sum := summary{Median: s.quantile(0.5), Min: s.quantile(0), Max: s.quantile(1), N: len(s)}
	if len(s) >= enoughForP95 {
		sum.P95 = s.quantile(0.95)
	}
	return sum
}

// figure is one row of the table.
type figure struct {
	Name string `json:"figure"`
	Unit string `json:"unit"` // "…/s" is better when larger, everything else when smaller
	summary
	Aim    float64 `json:"aim,omitempty"` // for the median
	AimP95 float64 `json:"aim_p95,omitempty"`
	Peer   *peer   `json:"peer,omitempty"`
	// Ratio is how many times better than the peer's our median is.
	Ratio float64 `json:"ratio,omitempty"`
	// Lima is what Lima took, as limaLabel says.
	Lima float64 `json:"lima_elsewhere,omitempty"`
	Note string  `json:"note,omitempty"`
}

// peer is another program's part of a figure, from the same run.
type peer struct {
	Name string `json:"name"`
	summary
	Note string `json:"note,omitempty"`
}

// limaLabel says where the figures of Lima are from. Lima takes no part in this
// run: its VM has to be made first, which takes many minutes.
const limaLabel = "Lima 2.2, measured 2026-11-21 on such a machine"

// figure reports samples of a figure, and returns its row for what else there
// is to say.
func (r *report) figure(name, unit string, s samples) *figure {
	f := &figure{Name: name, Unit: unit, summary: s.summary()}
	r.Figures = append(r.Figures, f)
	return f
}

// beside adds a peer's samples, where there are any.
func (f *figure) beside(name string, s samples) *figure {
	if len(s) == 0 {
		return f
	}
	f.Peer = &peer{Name: name, summary: s.summary()}
	switch {
	case f.N == 0:
	case larger(f.Unit):
		f.Ratio = f.Median / f.Peer.Median
	default:
		f.Ratio = f.Peer.Median / f.Median
	}
	return f
}

// larger tells whether larger values of a unit are better.
func larger(unit string) bool { return len(unit) > 2 && unit[len(unit)-2:] == "/s" }
