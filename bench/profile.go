package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
)

// profile is a CPU profile of one process in one window. Profiling costs CPU
// itself: figures of such a run are not to be quoted.
type profile struct{ file *os.File }

// start begins the profile if the job asks for one. A later round of the same
// cell overwrites an earlier one.
func (p *profile) start(j job, role string) (err error) {
	if j.Profiles == "" {
		return nil
	}
	name := strings.NewReplacer(" ", "-", ",", "").Replace(fmt.Sprintf("%s %s %s.pprof", j.Peer, j.Cell, role))
	if p.file, err = os.Create(filepath.Join(j.Profiles, name)); err != nil {
		return err
	}
	return pprof.StartCPUProfile(p.file)
}

// stop ends the profile, if there is one.
func (p *profile) stop() error {
	if p.file == nil {
		return nil
	}
	pprof.StopCPUProfile()
	return p.file.Close()
}
