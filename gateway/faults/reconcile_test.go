package faults

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// A trial is a gateway with its field, its load and its operations centre.
type trial struct {
	*box
	centre     *centre
	publishers []*publisher
	counter    *counter
	vessel     *vessel
	store      string // address of the InfluxDB to reconcile with; "": the gateway's own

	worstLoss int // readings in a damaged part; see TestCorruption

	quiet func(patience time.Duration) // waits until all has been done; nil: settled

	stop    context.CancelFunc
	loading sync.WaitGroup
}

// newTrial prepares a trial with n publishers. The data folder is made where
// data is "".
func newTrial(t testing.TB, data string, n int, more map[string]string) *trial {
	c, m := newCentre(t), newCounter(t)
	keys := map[string]string{"ioc": c.config(), "modbus": m.config(), "profiles": "profiles"}
	maps.Copy(keys, more)
	tr := &trial{box: newBox(t, data, keys), centre: c, counter: m, publishers: publishers(n), vessel: &vessel{mmsi: 574000001}}
	tr.write("profiles/counter.yaml", modbusProfile)
	return tr
}

// load begins to load the gateway, until unload.
func (tr *trial) load() {
	ctx, stop := context.WithCancel(context.Background())
	tr.stop = stop
	for _, p := range tr.publishers {
		tr.loading.Go(func() { p.keep(ctx, tr.mqtt) })
	}
	if tr.vessel != nil {
		tr.loading.Go(func() { tr.vessel.sail(ctx, tr.nmea) })
	}
	tr.t.Cleanup(tr.unload)
}

func (tr *trial) unload() {
	tr.stop()
	tr.loading.Wait()
}

// acknowledged returns how many readings were acknowledged to all publishers.
func (tr *trial) acknowledged() (n int) {
	for _, p := range tr.publishers {
		n += p.acknowledged()
	}
	return n
}

// awaitAcks waits until n more readings are acknowledged, and returns how long
// that took.
func (tr *trial) awaitAcks(n int, patience time.Duration) time.Duration {
	tr.t.Helper()
	begin, before := time.Now(), tr.acknowledged()
	tr.eventually(fmt.Sprintf("%d more readings are acknowledged", n), patience, func() bool { return tr.acknowledged() >= before+n })
	return time.Since(begin)
}

// reconcile waits until the followers are at the end and compares. What is
// wrong is an error of the test and in the row.
func (tr *trial) reconcile(r row) row {
	tr.t.Helper()
	if tr.quiet == nil {
		tr.settled(60 * time.Second)
	} else {
		tr.quiet(60 * time.Second)
	}
	warnings, faults := tr.centre.got()
	for _, fault := range faults[:min(len(faults), 5)] {
		tr.t.Error(fault)
	}
	byDevice := map[string][]telemetry.Warning{}
	for _, w := range warnings {
		byDevice[w.Device] = append(byDevice[w.Device], w)
	}
	for _, p := range tr.publishers {
		r.acknowledged += p.acknowledged()
		stored := tr.compare(p, &r)
		tr.judge(p, stored, byDevice[p.device], &r)
	}
	tr.others(&r)
	if r.lost > 0 || r.doubled > 0 || r.missed > 0 {
		tr.t.Errorf("%s: %d lost, %d doubled, %d warnings missed", r.fault, r.lost, r.doubled, r.missed)
	}
	results.add(r)
	return r
}

func (tr *trial) query(text string) []point {
	tr.t.Helper()
	address := tr.store
	if address == "" {
		address = tr.influx
	}
	points, err := queryPoints(address, text)
	if err != nil {
		tr.t.Fatal(err)
	}
	return points
}

// clockTimes is how times within a trial are printed.
const clockTimes = "15:04:05.000000"

// compare looks for each acknowledged reading of a publisher in InfluxDB.
func (tr *trial) compare(p *publisher, r *row) []point {
	stored := tr.query(fmt.Sprintf("SELECT n FROM count WHERE device = '%s'", p.device))
	seen := make([]int, len(p.times))
	for _, s := range stored {
		n := int(s.values[0])
		if n < 0 || n >= len(seen) || s.at != p.times[n]*int64(time.Millisecond) {
			tr.t.Errorf("%s: reading %d is at %d", p.device, n, s.at)
			continue
		}
		if seen[n]++; seen[n] > 1 {
			r.doubled++
		}
	}
	var missing []int
	for n, acked := range p.acked {
		if acked && seen[n] == 0 {
			missing = append(missing, n)
		}
	}
	if len(missing) > 0 {
		tr.t.Errorf("%s: %d acknowledged readings are not in InfluxDB: %v, the first acknowledged at %s", p.device, len(missing), missing[:min(10, len(missing))], p.when[missing[0]].Format(clockTimes))
		r.lost += len(missing)
	}
	return stored
}

// judge compares the warnings of a device with what is stored: which ones there
// are, in which order, and what the rules knew.
func (tr *trial) judge(p *publisher, stored []point, warnings []telemetry.Warning, r *row) {
	raised := map[int]telemetry.Warning{}
	last := -1
	lives := map[string]int{}
	for _, w := range warnings {
		if w.N <= lives[w.ID] {
			tr.t.Errorf("%s: transition %d of %s came after %d", p.device, w.N, w.ID, lives[w.ID])
		}
		lives[w.ID] = w.N
		if w.State != telemetry.Active {
			continue
		}
		n := int(w.Values["n"])
		if n <= last {
			tr.t.Errorf("%s: the warning of %d came after that of %d", p.device, n, last)
		}
		last = n
		raised[n] = w
	}
	for i, s := range stored {
		n := int(s.values[0])
		if n%alarmEvery != 0 {
			continue
		}
		r.expected++
		w, ok := raised[n]
		if !ok {
			r.missed++
			tr.t.Errorf("%s: no warning of %d", p.device, n)
			continue
		}
		wantCount, wantSum := 0, 0.0
		for j := i; j >= 0 && stored[j].at > s.at-int64(time.Second); j-- {
			wantCount++
			wantSum += stored[j].values[0]
		}
		var gotN, gotCount, gotSum float64
		if _, err := fmt.Sscan(w.Message.EN, &gotN, &gotCount, &gotSum); err != nil {
			tr.t.Errorf("%s: message %q: %v", p.device, w.Message.EN, err)
		}
		if int(gotCount) != wantCount || math.Abs(gotSum-wantSum) > 0.5 {
			tr.t.Errorf("%s: at %d the rules knew %v readings of the last second with sum %v, InfluxDB %d with %v", p.device, n, gotCount, gotSum, wantCount, wantSum)
		}
	}
}

// others looks at what acknowledges nothing: nothing may be there twice.
func (tr *trial) others(r *row) {
	look := func(what string, sent int, numbers []int) {
		slices.Sort(numbers)
		doubled := len(numbers) - len(slices.Compact(slices.Clone(numbers)))
		if doubled > 0 {
			tr.t.Errorf("%s: %d numbers are stored twice", what, doubled)
			r.doubled += doubled
		}
		if r.remark != "" {
			r.remark += ", "
		}
		r.remark += fmt.Sprintf("%s %d of %d", what, len(numbers), sent)
	}
	var numbers []int
	if tr.counter != nil {
		for _, p := range tr.query("SELECT n FROM count WHERE device = 'modbus-counter'") {
			numbers = append(numbers, int(p.values[0]))
		}
		look("Modbus", int(tr.counter.answered.Load()), numbers)
	}
	if tr.vessel != nil {
		numbers = nil
		for _, p := range tr.query(fmt.Sprintf("SELECT lon FROM position WHERE device = '%s'", tr.vessel.device())) {
			numbers = append(numbers, int(math.Round(p.values[0]*600000)))
		}
		look("AIS", tr.vessel.sent, numbers)
	}
}
