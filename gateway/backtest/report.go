package backtest

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"time"

	"haidang/gateway/telemetry"
)

// FlapWithin is the time after a warning has cleared within which the same rule
// raising again for the same device counts as flapping.
const FlapWithin = time.Hour

// MaxEpisodes bounds the episodes that are kept of a rule and a device; beyond
// it they are counted only.
const MaxEpisodes = 10_000

// An Episode is one warning from its raise to its end.
type Episode struct {
	ID       string             `json:"id"`
	Rule     string             `json:"rule"`
	Device   string             `json:"device"`
	Start    time.Time          `json:"start"`
	End      *time.Time         `json:"end,omitempty"` // none: still active at the end of the report
	Severity telemetry.Severity `json:"severity"`      // the gravest that it had
	Steps    int                `json:"transitions"`
	Values   map[string]float64 `json:"values"` // as the rule saw them when it was gravest
	Message  telemetry.Text     `json:"message"`
	Shadow   bool               `json:"shadow,omitempty"` // of a rule in shadow: delivered to nobody
	Minutes  float64            `json:"minutes"`          // of it within the report
}

// A Row is what a rule did for a device.
type Row struct {
	Rule     string             `json:"rule"`
	Device   string             `json:"device"`
	Raised   int                `json:"raised"`
	Flaps    int                `json:"flaps"`
	Minutes  float64            `json:"minutes_in_alarm"`
	Longest  float64            `json:"longest_minutes"`
	Severity telemetry.Severity `json:"severity"` // the gravest
	Episodes []*Episode         `json:"episodes"` // at most MaxEpisodes

	cleared time.Time // when the last one ended
}

// A Report is what a trial did.
type Report struct {
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	Readings int       `json:"readings"`
	Devices  int       `json:"devices"` // with readings
	Rows     []*Row    `json:"rows"`    // by rule and device
	// Unheard are devices of which there is no reading, though rules raised for
	// them. They are in no row.
	Unheard []string `json:"unheard,omitempty"`
}

// Raised returns how many warnings there are.
func (r *Report) Raised() int {
	n := 0
	for _, row := range r.Rows {
		n += row.Raised
	}
	return n
}

type key struct{ rule, device string }

// A fold makes rows of transitions.
type fold struct {
	wanted func(rule, device string) bool
	rows   map[key]*Row
	active map[string]*Episode // by warning
}

func (f *fold) take(steps []telemetry.Transition) {
	for i := range steps {
		t := &steps[i]
		if f.wanted != nil && !f.wanted(t.Rule, t.Device) {
			continue
		}
		e := f.active[t.ID]
		if e == nil {
			if t.State == telemetry.Cleared {
				continue
			}
			e = &Episode{ID: t.ID, Rule: t.Rule, Device: t.Device, Start: t.Start, Shadow: t.Shadow}
			f.active[t.ID] = e
			f.row(e).raise(e)
		}
		e.Steps++
		if t.State == telemetry.Cleared {
			end := t.At
			e.End = &end
			f.row(e).cleared = end
			delete(f.active, t.ID)
			continue
		}
		if t.Severity > e.Severity {
			e.Severity, e.Values, e.Message = t.Severity, t.Values, t.Message
		}
	}
}

func (f *fold) row(e *Episode) *Row {
	k := key{e.Rule, e.Device}
	if f.rows[k] == nil {
		f.rows[k] = &Row{Rule: e.Rule, Device: e.Device}
	}
	return f.rows[k]
}

func (r *Row) raise(e *Episode) {
	r.Raised++
	if !r.cleared.IsZero() && e.Start.Sub(r.cleared) < FlapWithin {
		r.Flaps++
	}
	if len(r.Episodes) < MaxEpisodes {
		r.Episodes = append(r.Episodes, e)
	}
}

// report closes the fold.
func (f *fold) report(from, to time.Time, readings int, heard map[string]int) Report {
	out := Report{From: from, To: to, Readings: readings, Devices: len(heard)}
	unheard := map[string]bool{}
	for _, row := range f.rows {
		if heard[row.Device] == 0 {
			unheard[row.Device] = true
			continue
		}
		row.close(from, to)
		if row.Raised > 0 {
			out.Rows = append(out.Rows, row)
		}
	}
	for device := range unheard {
		out.Unheard = append(out.Unheard, device)
	}
	sort.Strings(out.Unheard)
	slices.SortFunc(out.Rows, func(a, b *Row) int {
		return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Device, b.Device))
	})
	return out
}

// close measures the episodes and drops those that were over before from.
func (r *Row) close(from, to time.Time) {
	kept := r.Episodes[:0]
	for _, e := range r.Episodes {
		begin, end := e.Start, to
		if e.End != nil {
			end = *e.End
		}
		if begin.Before(from) {
			begin = from
		}
		if end.Before(from) {
			r.Raised--
			continue
		}
		e.Minutes = math.Round(end.Sub(begin).Minutes()*1e4) / 1e4
		r.Minutes += e.Minutes
		r.Longest = max(r.Longest, e.Minutes)
		r.Severity = max(r.Severity, e.Severity)
		kept = append(kept, e)
	}
	r.Episodes = kept
	r.Flaps = min(r.Flaps, max(r.Raised-1, 0))
}
