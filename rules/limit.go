package rules

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"haidang/gateway/telemetry"
)

// A limit is a threshold that changes on known days, in the order of these.
type limit []limitFrom

type limitFrom struct {
	from  int64 // log time, Unix ns
	value float64
}

// at returns the value in force at a log time.
func (l limit) at(now int64) (v float64, ok bool) {
	for i := len(l) - 1; i >= 0; i-- {
		if l[i].from <= now {
			return l[i].value, true
		}
	}
	return 0, false
}

// readLimits checks the limits of a document.
func readLimits(list []Limit) (map[string]limit, []telemetry.Fault) {
	limits := map[string]limit{}
	var faults []telemetry.Fault
	for i := range list {
		l := &list[i]
		at := fmt.Sprintf("limits[%d]", i)
		if !telemetry.ValidName(l.Name) {
			faults = append(faults, telemetry.Faultf(at+".name", "limit name %q is not a name of letters, digits and ._:- that begins with a letter or digit", l.Name))
		}
		if !telemetry.Finite(l.Value) {
			faults = append(faults, telemetry.Faultf(at+".value", "limit %v is not a number", l.Value))
		}
		from := int64(never)
		if l.From != "" {
			t, err := time.Parse(time.DateOnly, l.From)
			if err != nil || t.Year() < 1900 || t.Year() > 2200 {
				faults = append(faults, telemetry.Faultf(at+".from", "from %q is not a day such as 2026-01-01", l.From))
				continue
			}
			from = t.UnixNano() - vietnam
		}
		if slices.ContainsFunc(limits[l.Name], func(other limitFrom) bool { return other.from == from }) {
			faults = append(faults, telemetry.Faultf(at, "limit %q is there twice from the same day", l.Name))
			continue
		}
		limits[l.Name] = append(limits[l.Name], limitFrom{from, l.Value})
	}
	for _, l := range limits {
		slices.SortFunc(l, func(a, b limitFrom) int { return cmp.Compare(a.from, b.from) })
	}
	return limits, faults
}
