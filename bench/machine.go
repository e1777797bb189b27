package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"google.golang.org/grpc"
)

// machine says where and in what company the rows were measured.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	GRPC   string `json:"grpc"`
	// Modules are the versions of the rivals.
	Modules map[string]string `json:"modules,omitempty"`
	// Load1 is the one-minute load average before and after; this benchmark's own
	// load is part of the latter.
	Load1 [2]float64 `json:"load_average"`
	// Foreign is the CPU that other processes used during the measured windows, in
	// cores. It has the resolution of /proc/stat, 10 ms in a window.
	Foreign stat `json:"foreign_cores"`
}

func thisMachine() (machine, error) {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version(), GRPC: grpc.Version, Modules: rivalVersions()}
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m, err
	}
	if _, rest, ok := strings.Cut(string(cpuinfo), "model name"); ok {
		line, _, _ := strings.Cut(rest, "\n")
		m.CPU = strings.TrimLeft(line, "\t :")
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return m, err
	}
	m.Kernel = strings.TrimSpace(string(kernel))
	m.Load1[0], err = loadAverage()
	return m, err
}

// finish adds what is known only after the runs.
func (m *machine) finish(rows []row) (err error) {
	medians := make([]float64, 0, len(rows))
	for _, r := range rows {
		medians = append(medians, r.ForeignCores.Median)
	}
	m.Foreign = statOf(medians)
	for _, r := range rows {
		m.Foreign.Min = min(m.Foreign.Min, r.ForeignCores.Min)
		m.Foreign.Max = max(m.Foreign.Max, r.ForeignCores.Max)
	}
	m.Load1[1], err = loadAverage()
	return err
}

// loadAverage returns the load of the last minute.
func loadAverage() (load float64, err error) {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, err
	}
	if _, err := fmt.Sscan(string(text), &load); err != nil {
		return 0, fmt.Errorf("/proc/loadavg: %w", err)
	}
	return load, nil
}

// rivalVersions reads from this program which releases it was built with.
func rivalVersions() map[string]string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	versions := make(map[string]string)
	for _, dep := range info.Deps {
		switch dep.Path {
		case "connectrpc.com/connect", "github.com/containerd/ttrpc", "storj.io/drpc",
			"google.golang.org/grpc", "google.golang.org/protobuf":
			versions[dep.Path] = dep.Version
		}
	}
	return versions
}
