package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
)

// stat is one quantity over the rounds.
type stat struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// row is one peer in one cell. Its JSON form is read by other programs; fields
// are added, not renamed.
type row struct {
	Peer string `json:"peer"`
	cell
	P50          stat `json:"p50_us"`
	P99          stat `json:"p99_us"`
	CallsPerS    stat `json:"calls_s"`
	CPU          stat `json:"cpu_us"`   // per call, both processes
	Switches     stat `json:"switches"` // per call, both processes
	Allocs       stat `json:"allocs"`   // per call, client
	ServerAllocs stat `json:"server_allocs"`
	RSS          stat `json:"rss_kib"`       // both processes
	ForeignCores stat `json:"foreign_cores"` // CPU used by anything else meanwhile
}

// report is the content of the JSON file.
type report struct {
	Machine machine `json:"machine"`
	Rows    []row   `json:"rows"`
}

func rowOf(peer string, c cell, samples []sample) row {
	over := func(get func(sample) float64) stat {
		values := make([]float64, len(samples))
		for i, s := range samples {
			values[i] = get(s)
		}
		return statOf(values)
	}
	return row{
		Peer:         peer,
		cell:         c,
		P50:          over(func(s sample) float64 { return s.P50 }),
		P99:          over(func(s sample) float64 { return s.P99 }),
		CallsPerS:    over(func(s sample) float64 { return s.CallsPerS }),
		CPU:          over(func(s sample) float64 { return s.CPU }),
		Switches:     over(func(s sample) float64 { return s.Switches }),
		Allocs:       over(func(s sample) float64 { return s.Allocs }),
		ServerAllocs: over(func(s sample) float64 { return s.ServerAllocs }),
		RSS:          over(func(s sample) float64 { return s.RSS }),
		ForeignCores: over(func(s sample) float64 { return s.ForeignCores }),
	}
}

// statOf returns the median (the mean of the middle two of an even number), least
// and greatest of values, of which there is at least one.
func statOf(values []float64) stat {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return stat{
		Median: round((sorted[(n-1)/2] + sorted[n/2]) / 2),
		Min:    round(sorted[0]),
		Max:    round(sorted[n-1]),
	}
}

// round leaves three digits after the point.
func round(v float64) float64 { return math.Round(v*1e3) / 1e3 }

func (r report) encode() ([]byte, error) {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(text, '\n'), nil
}

// writeFile writes the report whole or not at all.
func (r report) writeFile(name string) error {
	text, err := r.encode()
	if err != nil {
		return err
	}
	partial := name + ".tmp"
	if err := os.WriteFile(partial, text, 0o644); err != nil {
		return fmt.Errorf("results: %w", err)
	}
	if err := os.Rename(partial, name); err != nil {
		return fmt.Errorf("results: %w", err)
	}
	return nil
}
