package hub

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/hub/internal/store"
)

// Bounds of samples that processes report.
const (
	maxReportRuns    = 8
	maxReportSamples = 600     // of all runs
	maxSampleTime    = 1 << 43 // µs
	maxWindowLoads   = 4 << 20 // numbers of all reports of a window; those that come later are counted
	loadsOld         = 15 * time.Minute
	loadsAhead       = time.Minute
)

// What the columns of a load are, as they are stored: theirs is the order. Times are µs.
const (
	loadUser = iota
	loadSystem
	loadGC
	loadRunQueue
	loadVoluntary
	loadInvoluntary
	loadMade
	loadServed
	loadOpenMade
	loadOpenServed
	loadThreads
	loadColumns
)

// What the columns of a host are, after loadUser and loadSystem.
const (
	hostIdle = 2 + iota // with the others 0: nobody looked
	hostSteal
	hostKnown // used by those that report, and the hub
	hostColumns
)

var _ [loadColumns]struct{} = [store.LoadColumns]struct{}{}

// columnsOf are a sample's columns, in the order in which they are kept.
func columnsOf(s *hubpb.Sample) [loadThreads][]uint64 {
	return [...][]uint64{s.GetUserUs(), s.GetSystemUs(), s.GetGcUs(), s.GetRunQueueUs(), s.GetVoluntarySwitches(), s.GetInvoluntarySwitches(), s.GetMade(), s.GetServed(), s.GetOpenMade(), s.GetOpenServed()}
}

func hostOf(s *hubpb.Sample) [4][]uint64 {
	return [...][]uint64{s.GetHostUserUs(), s.GetHostSystemUs(), s.GetHostIdleUs(), s.GetHostStealUs()}
}

func checkLoad(l *hubpb.Load) error {
	if times := min(l.GetUserNs(), l.GetSystemNs(), l.GetRunQueueNs(), l.GetGcNs(), l.GetSpinNs()); times < 0 {
		return fmt.Errorf("a load of %d ns", times)
	}
	if most := max(l.GetUserNs(), l.GetSystemNs(), l.GetRunQueueNs(), l.GetGcNs(), l.GetSpinNs()); most > 1000*maxSampleTime {
		return fmt.Errorf("a load of %d ns; %d at most", most, int64(1000*maxSampleTime))
	}
	return nil
}

func checkSamples(all []*hubpb.Sample) error {
	n := 0
	for _, s := range all {
		n += len(s.GetTookUs())
	}
	if len(all) > maxReportRuns || n > maxReportSamples {
		return fmt.Errorf("%d samples in %d runs; %d and %d at most", n, len(all), maxReportSamples, maxReportRuns)
	}
	for _, s := range all {
		if at := s.GetFromUnixNano(); at < 0 || at > 1<<62 {
			return fmt.Errorf("samples from %d ns since 1970", at)
		}
		columns, host := columnsOf(s), hostOf(s)
		for _, column := range append(append([][]uint64{s.GetTookUs()}, columns[:]...), host[:]...) {
			if len(column) != 0 && len(column) != len(s.GetTookUs()) {
				return fmt.Errorf("a column of %d samples in a run of %d", len(column), len(s.GetTookUs()))
			}
			for _, v := range column {
				if v > maxSampleTime {
					return fmt.Errorf("a sample of %d; %d at most", v, uint64(maxSampleTime))
				}
			}
		}
	}
	return nil
}

// shortID names to programs what must not be told, or is long.
func shortID(of string) string {
	sum := sha256.Sum256([]byte(of))
	return hex.EncodeToString(sum[:8])
}

// hostID is no process's: their identities have 16 bytes.
func hostID(boot string) string { return shortID("host, by boot " + boot) }

// sampledLocked takes in the samples of a report. Those whose clock is off are left out, and counted.
func (a *agents) sampledLocked(r *hubpb.ReportRequest, now time.Time) {
	p := r.GetProcess()
	for _, s := range r.GetSamples() {
		l := store.Load{
			ID: shortID(string(p.GetIdentity())), Host: hostID(p.GetBoot()), Service: p.GetService(), Name: p.GetHost(), PID: p.GetPid(),
			From: time.Unix(0, s.GetFromUnixNano()).UTC(), Took: s.GetTookUs(),
		}
		for i, column := range columnsOf(s) {
			l.Columns[i] = column
		}
		if n := s.GetGomaxprocs(); n > 0 {
			l.Columns[loadThreads] = make([]uint64, len(l.Took))
			for i := range l.Columns[loadThreads] {
				l.Columns[loadThreads][i] = uint64(n)
			}
		}
		numbers := len(l.Took)
		for _, column := range l.Columns {
			numbers += len(column)
		}
		if len(l.Took) == 0 || l.Check() != nil || l.From.Before(now.Add(-loadsOld)) || l.Until().After(now.Add(loadsAhead)) || a.loadNumbers+numbers > maxWindowLoads {
			a.unsampled += uint64(len(l.Took))
			continue
		}
		a.loads, a.loadNumbers = append(a.loads, l), a.loadNumbers+numbers
		if a.hosts.add(p, s) {
			a.hosts.tells(p.GetBoot(), identity(p.GetIdentity()), now)
		}
	}
	r.Samples = nil
}
