package backtest

import (
	"cmp"
	"slices"
	"time"
)

// A Comparison is two reports over the same readings.
type Comparison struct {
	Against string     `json:"against"`  // where the rules of now come from; "" when that is not said
	Same    int        `json:"same"`     // warnings that both raise, at the same time
	Changed []Pair     `json:"changed"`  // that both raise, with another begin, end or severity
	OnlyOld []*Episode `json:"only_old"` // that only the rules of now raise
	OnlyNew []*Episode `json:"only_new"` // that only the rules on trial raise
}

// A Pair is what two sets of rules made of one occasion.
type Pair struct {
	Old *Episode `json:"old"`
	New *Episode `json:"new"`
}

// Compare joins the episodes of a rule and device that overlap in time.
func Compare(before, after *Report) Comparison {
	c := Comparison{Changed: []Pair{}, OnlyOld: []*Episode{}, OnlyNew: []*Episode{}}
	old := map[key][]*Episode{}
	for _, row := range before.Rows {
		old[key{row.Rule, row.Device}] = row.Episodes
	}
	taken := map[*Episode]bool{}
	for _, row := range after.Rows {
		candidates := old[key{row.Rule, row.Device}]
		first := 0
		for _, n := range row.Episodes {
			for first < len(candidates) && candidates[first].over(n.Start) {
				first++
			}
			var o *Episode
			for _, e := range candidates[first:] {
				if n.End != nil && e.Start.After(*n.End) {
					break
				}
				if !taken[e] {
					o = e
					break
				}
			}
			switch {
			case o == nil:
				c.OnlyNew = append(c.OnlyNew, n)
				continue
			case o.Start.Equal(n.Start) && sameEnd(o, n) && o.Severity == n.Severity:
				c.Same++
			default:
				c.Changed = append(c.Changed, Pair{o, n})
			}
			taken[o] = true
		}
	}
	for _, row := range before.Rows {
		for _, e := range row.Episodes {
			if !taken[e] {
				c.OnlyOld = append(c.OnlyOld, e)
			}
		}
	}
	byTime := func(a, b *Episode) int { return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(a.ID, b.ID)) }
	slices.SortFunc(c.OnlyOld, byTime)
	slices.SortFunc(c.OnlyNew, byTime)
	slices.SortFunc(c.Changed, func(a, b Pair) int { return byTime(a.New, b.New) })
	return c
}

// over reports whether the episode ended before t.
func (e *Episode) over(t time.Time) bool { return e.End != nil && e.End.Before(t) }

func sameEnd(a, b *Episode) bool {
	if a.End == nil || b.End == nil {
		return a.End == b.End
	}
	return a.End.Equal(*b.End)
}
