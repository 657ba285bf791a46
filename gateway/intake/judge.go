package intake

import (
	"slices"
	"strconv"
	"strings"

	"haidang/gateway/telemetry"
)

// judge gives the reading and its values their quality, after calibration.
// Failures are added to those that it was given.
//
// A word where the kind has a number is bad; one that only writes a number, as
// in "3.70", is that number. While a period of maintenance or calibration is in
// force, that is the quality, whatever the device says, and nothing is tested.
func (in *Intake) judge(known *world, r *telemetry.Reading, periods []telemetry.Period, failures []failure) []failure {
	kind := known.Kinds.Kind(r.Kind)
	apart(kind, r)
	p := known.plan(r.Device, r.Kind)
	if whole := inForce(periods, "", r); whole != telemetry.Good {
		in.excuse(kind, p, r, whole)
		return failures
	}
	for i := range r.Values {
		v := &r.Values[i]
		q := quantity(kind, v.Name)
		if q == nil || q.Words {
			continue
		}
		number(v)
		if p != nil {
			p.calibrate(v, r.Time)
		}
		switch state := inForce(periods, v.Name, r); {
		case state != telemetry.Good:
			v.Quality = state
		case v.Text != "":
			v.Quality = telemetry.Bad
			in.metrics.words.Inc()
		case !q.InRange(v.Number):
			v.Quality = telemetry.Bad
			in.metrics.outOfRange.Inc()
			failures = append(failures, failure{r.Device, r.Kind, v.Name, grossRange, telemetry.Bad})
		}
	}
	if p != nil {
		failures = in.test(p, r, failures)
	}
	for i := range r.Values {
		r.Quality = max(r.Quality, r.Values[i].Quality)
	}
	return failures
}

// excuse gives the reading the quality of a period that covers all of the
// device. Its values have none of their own then.
func (in *Intake) excuse(kind *telemetry.Kind, p *plan, r *telemetry.Reading, state telemetry.Quality) {
	r.Quality = state
	for i := range r.Values {
		v := &r.Values[i]
		if q := quantity(kind, v.Name); q != nil && !q.Words {
			number(v)
			if p != nil {
				p.calibrate(v, r.Time)
			}
		}
		v.Quality = telemetry.Good
	}
	if p != nil && p.remembers {
		in.tracks.forget(r)
	}
}

// inForce returns the state that a period gives to the value of a reading (""
// is the reading as a whole), else good. Link readings are the gateway's own:
// no period concerns them.
func inForce(periods []telemetry.Period, value string, r *telemetry.Reading) telemetry.Quality {
	state := telemetry.Good
	if len(periods) == 0 || r.Kind == telemetry.KindLink {
		return state
	}
	for i := range periods {
		if p := &periods[i]; p.Value == value && p.Covers(r.Time) {
			state = max(state, p.State)
		}
	}
	return state
}

func quantity(kind *telemetry.Kind, name string) *telemetry.Quantity {
	if kind == nil {
		return nil
	}
	return kind.Quantity(name)
}

// number makes a number of a word that only writes one.
func number(v *telemetry.Value) {
	if v.Text == "" {
		return
	}
	if f, err := strconv.ParseFloat(strings.TrimSpace(v.Text), 64); err == nil && telemetry.Finite(f) {
		v.Number, v.Text = f, ""
	}
}

// apart makes words of numbers that the log and the store would write where the
// quality or the word of another value goes: level_m_quality beside level_m. One
// such number in the store would keep out all readings of the kind, of whatever
// device, that have the other.
func apart(kind *telemetry.Kind, r *telemetry.Reading) {
	for i := range r.Values {
		v := &r.Values[i]
		of, ok := strings.CutSuffix(v.Name, "_quality")
		if !ok {
			of, ok = strings.CutSuffix(v.Name, "_text")
		}
		if !ok || v.Text != "" || quantity(kind, v.Name) != nil {
			continue
		}
		if quantity(kind, of) != nil || slices.ContainsFunc(r.Values, func(v telemetry.Value) bool { return v.Name == of }) {
			v.Text, v.Number = strconv.FormatFloat(v.Number, 'g', -1, 64), 0
		}
	}
}
