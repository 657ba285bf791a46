package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"haidang/gateway/console"
	"haidang/gateway/telemetry"
)

// A summary tells how warnings were dealt with, of one day, month, station or rule.
// A warning belongs to the time at which it was raised.
type summary struct {
	Group        string  `json:"group"` // 2025-10-27, 2025-10, a site, or a rule
	Raised       int     `json:"raised"`
	Acknowledged int     `json:"acknowledged"`
	AckMedianS   float64 `json:"ack_median_s"` // from raised to acknowledged, in seconds; 0: none was
	AckP95S      float64 `json:"ack_p95_s"`
	FalseAlarms  int     `json:"false_alarms"` // by operators' mark
	Escalated    int     `json:"escalated"`
	Reminders    int     `json:"reminders"`
	OutOfService int     `json:"out_of_service"` // raised while out of service: nobody was told
	// Chatter is the rule and device of the group that was raised most often, and
	// how often.
	Chatter  string `json:"chatter,omitempty"`
	Chatters int    `json:"chatters,omitempty"`
}

// summaries are those of a query, in their order.
type summaries []summary

// maxReported bounds the warnings of one query.
const maxReported = 1_000_000

// A tale is what a report needs of one warning.
type tale struct {
	rule, device, site string
	raised             time.Time
	acked              time.Duration // 0: not
	n                  int           // newest transition that was seen
	mistake, quiet     bool
	escalated          bool
	reminders          int
}

// tell takes a transition.
func (w *tale) tell(t *telemetry.Transition) {
	w.n, w.mistake, w.quiet = t.N, t.FalseAlarm, t.Quiet
	if t.Act == nil {
		return
	}
	switch t.Act.Do {
	case telemetry.Ack:
		if w.acked == 0 {
			w.acked = max(t.At.Sub(w.raised), 1)
		}
	case telemetry.Escalate:
		w.escalated = true
	case telemetry.Remind:
		w.reminders++
	}
}

// A period is what a report is asked of.
type period struct {
	from, to  time.Time // log time; to is not in it
	by        string
	exercises bool
}

// periodOf reads a query; without from and to it is the last 31 days.
func periodOf(query url.Values, now time.Time) (p period, err error) {
	p = period{from: now.AddDate(0, 0, -31), to: now, by: "day", exercises: query.Get("exercises") == "true"}
	if text := query.Get("to"); text != "" {
		if p.to, err = moment(text); err != nil {
			return p, fmt.Errorf("to: %w", err)
		}
		if len(text) == len("2006-01-02") {
			p.to = p.to.AddDate(0, 0, 1) // the whole day
		}
		p.from = p.to.AddDate(0, 0, -31)
	}
	if text := query.Get("from"); text != "" {
		if p.from, err = moment(text); err != nil {
			return p, fmt.Errorf("from: %w", err)
		}
	}
	if !p.from.Before(p.to) {
		return p, fmt.Errorf("from: %s is not before %s", clockTime(p.from), clockTime(p.to))
	}
	if by := query.Get("by"); by != "" {
		p.by = by
	}
	if !slices.Contains([]string{"day", "month", "station", "rule"}, p.by) {
		return p, fmt.Errorf("by: %q is not one of day, month, station, rule", p.by)
	}
	return p, nil
}

// group names the report that a warning belongs to.
func (p *period) group(w *tale) string {
	switch p.by {
	case "month":
		return w.raised.In(vietnam).Format("2006-01")
	case "station":
		return w.site
	case "rule":
		return w.rule
	}
	return w.raised.In(vietnam).Format("2006-01-02")
}

// A reporter makes reports of what has become of warnings, one at a time.
type reporter struct {
	from *annals
	now  func() time.Time
	turn chan struct{}
}

func newReporter(from *annals, now func() time.Time) *reporter {
	return &reporter{from: from, now: now, turn: make(chan struct{}, 1)}
}

// of answers a query. All since its beginning is read: an acknowledgement may come
// long after the warning.
func (r *reporter) of(ctx context.Context, query url.Values) (any, error) {
	p, err := periodOf(query, r.now())
	if err != nil {
		return nil, err
	}
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, askTime*3/4)
	defer cancel()
	tales := map[string]*tale{}
	var done []*tale // of warnings that were raised again under the same id
	err = r.from.each(ctx, p.from, nil, func(t telemetry.Transition) {
		if t.Order != nil || t.Shadow || t.State == telemetry.Pending || t.Exercise && !p.exercises {
			return
		}
		w := tales[t.ID]
		switch {
		case w == nil && (t.Start.Before(p.from) || !t.Start.Before(p.to) || len(tales)+len(done) > maxReported):
			return
		case w != nil && t.N <= w.n:
			return // written twice
		case w == nil || !w.raised.Equal(t.Start):
			if w != nil {
				done = append(done, w)
			}
			w = &tale{rule: t.Rule, device: t.Device, site: t.Site, raised: t.Start}
			tales[t.ID] = w
		}
		w.tell(&t)
	})
	if err != nil {
		return nil, fmt.Errorf("%w: read what has become of warnings: %w", console.ErrUnavailable, err)
	}
	for _, w := range tales {
		done = append(done, w)
	}
	if len(done) > maxReported {
		return nil, fmt.Errorf("from: there are over %d warnings; ask of a shorter time", maxReported)
	}
	return p.sum(done), nil
}

// sum makes the reports of warnings.
func (p *period) sum(list []*tale) summaries {
	groups := map[string][]*tale{}
	for _, w := range list {
		name := p.group(w)
		groups[name] = append(groups[name], w)
	}
	out := summaries{}
	for _, name := range sortedNames(groups) {
		out = append(out, sumOf(name, groups[name]))
	}
	return out
}

func sumOf(name string, list []*tale) summary {
	r := summary{Group: name, Raised: len(list)}
	var times []time.Duration
	raises := map[string]int{}
	for _, w := range list {
		if w.acked > 0 {
			times = append(times, w.acked)
		}
		for _, c := range []struct {
			is   bool
			into *int
		}{{w.acked > 0, &r.Acknowledged}, {w.mistake, &r.FalseAlarms}, {w.escalated, &r.Escalated}, {w.quiet, &r.OutOfService}} {
			if c.is {
				*c.into++
			}
		}
		r.Reminders += w.reminders
		raises[w.rule+" at "+w.device]++
	}
	slices.Sort(times)
	r.AckMedianS, r.AckP95S = nearestRank(times, 50), nearestRank(times, 95)
	for _, what := range sortedNames(raises) {
		if n := raises[what]; n > r.Chatters && n > 1 {
			r.Chatter, r.Chatters = what, n
		}
	}
	return r
}

// nearestRank is a percentile of sorted times, in seconds: the smallest time that
// so many per cent are not over. 0 of none.
func nearestRank(sorted []time.Duration, percent int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := (len(sorted)*percent + 99) / 100
	return sorted[max(rank, 1)-1].Round(time.Millisecond).Seconds()
}

// header names the columns of the CSV form, which are the members of the JSON
// form.
func (summaries) header() []string {
	return []string{"group", "raised", "acknowledged", "ack_median_s", "ack_p95_s", "false_alarms", "escalated", "reminders", "out_of_service", "chatter", "chatters"}
}

func (r *summary) cells() []string {
	number := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
	return []string{r.Group, strconv.Itoa(r.Raised), strconv.Itoa(r.Acknowledged), number(r.AckMedianS), number(r.AckP95S), strconv.Itoa(r.FalseAlarms),
		strconv.Itoa(r.Escalated), strconv.Itoa(r.Reminders), strconv.Itoa(r.OutOfService), r.Chatter, strconv.Itoa(r.Chatters)}
}

// CSV writes the reports as RFC 4180 has it. A cell that a spreadsheet would take
// for a formula begins with an apostrophe.
func (list summaries) CSV() ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	w.UseCRLF = true
	err := w.Write(list.header())
	for i := range list {
		cells := list[i].cells()
		for j, cell := range cells {
			if cell != "" && bytes.ContainsAny([]byte("=+-@\t\r"), cell[:1]) {
				cells[j] = "'" + cell
			}
		}
		err = cmp.Or(err, w.Write(cells))
	}
	w.Flush()
	return b.Bytes(), cmp.Or(err, w.Error())
}
