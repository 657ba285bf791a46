package telemetry

import (
	"fmt"
	"sort"
	"strings"
	"time"
)

// Tests are the tests of quality of one value, in the words of QARTOD (IOOS,
// Manual for Real-Time Quality Control of Water Level Data, version 2.1, 2021,
// section 3.3): what fails a test is bad, what is suspect is suspect. A test
// that is left out is not made. Package intake makes them; see there for what
// each means for readings that are judged as they come.
type Tests struct {
	GrossRange   *GrossRange   `json:"gross_range,omitempty" yaml:"gross_range"`
	Spike        *Spike        `json:"spike,omitempty" yaml:"spike"`
	RateOfChange *RateOfChange `json:"rate_of_change,omitempty" yaml:"rate_of_change"`
	FlatLine     *FlatLine     `json:"flat_line,omitempty" yaml:"flat_line"`
}

// GrossRange is QARTOD's test 4: a value outside of Fail, what the instrument
// can measure at this place, is bad; one outside of Suspect, what is plausible
// here, is suspect. Each is [least, greatest].
type GrossRange struct {
	Fail    []float64 `json:"fail,omitempty" yaml:"fail"`       // [least, greatest]; outside is bad
	Suspect []float64 `json:"suspect,omitempty" yaml:"suspect"` // [least, greatest]; outside is suspect
}

// Spike is QARTOD's test 6 for values that are judged before the next one is
// known: a value that departs by more than Suspect, or Fail, from the last one
// that was believed is a spike, until Confirm readings in a row agree. 0: no
// limit.
type Spike struct {
	Suspect float64 `json:"suspect,omitempty" yaml:"suspect"` // departure in the value's unit
	Fail    float64 `json:"fail,omitempty" yaml:"fail"`       // departure in the value's unit
	Confirm int     `json:"confirm,omitempty" yaml:"confirm"` // 1 to 100; 0: DefaultConfirm
}

// DefaultConfirm is how many readings in a row must agree on a new level before
// it is believed.
const DefaultConfirm = 2

// RateOfChange is QARTOD's test 7: units of the value per minute between the
// last reading that was believed and this one. 0: no limit.
type RateOfChange struct {
	Suspect float64 `json:"suspect,omitempty" yaml:"suspect"` // units of the value per minute
	Fail    float64 `json:"fail,omitempty" yaml:"fail"`       // units of the value per minute
}

// FlatLine is QARTOD's test 8: a value that stays within Tolerance for this long
// is suspect, or bad. 0: no limit.
type FlatLine struct {
	Suspect   Duration `json:"suspect,omitempty" yaml:"suspect"`     // how long until it is suspect
	Fail      Duration `json:"fail,omitempty" yaml:"fail"`           // how long until it is bad
	Tolerance float64  `json:"tolerance,omitempty" yaml:"tolerance"` // in the value's unit, on either side
}

// Any reports whether there is a test at all.
func (t Tests) Any() bool { return t != Tests{} }

// Over returns the tests with those of base where t has none.
func (t Tests) Over(base Tests) Tests {
	if t.GrossRange == nil {
		t.GrossRange = base.GrossRange
	}
	if t.Spike == nil {
		t.Spike = base.Spike
	}
	if t.RateOfChange == nil {
		t.RateOfChange = base.RateOfChange
	}
	if t.FlatLine == nil {
		t.FlatLine = base.FlatLine
	}
	return t
}

// Validate reports limits that cannot be meant.
func (t Tests) Validate() []Fault {
	var faults []Fault
	if g := t.GrossRange; g != nil {
		faults = append(faults, validSpan("gross_range.fail", g.Fail)...)
		faults = append(faults, validSpan("gross_range.suspect", g.Suspect)...)
		if len(g.Fail) == 2 && len(g.Suspect) == 2 && (g.Suspect[0] < g.Fail[0] || g.Suspect[1] > g.Fail[1]) {
			faults = append(faults, Faultf("gross_range.suspect", "%v reaches beyond fail %v: what is bad there would be suspect nowhere", g.Suspect, g.Fail))
		}
	}
	if s := t.Spike; s != nil {
		faults = append(faults, validLimits("spike", s.Suspect, s.Fail)...)
		if s.Confirm < 0 || s.Confirm > 100 {
			faults = append(faults, Faultf("spike.confirm", "%d readings are not in 1..100", s.Confirm))
		}
	}
	if r := t.RateOfChange; r != nil {
		faults = append(faults, validLimits("rate_of_change", r.Suspect, r.Fail)...)
	}
	if f := t.FlatLine; f != nil {
		faults = append(faults, validLimits("flat_line", f.Suspect.Std().Seconds(), f.Fail.Std().Seconds())...)
		if !(f.Tolerance >= 0) || !Finite(f.Tolerance) {
			faults = append(faults, Faultf("flat_line.tolerance", "%v is not 0 or more", f.Tolerance))
		}
	}
	return faults
}

func validSpan(path string, span []float64) []Fault {
	switch {
	case span == nil:
		return nil
	case len(span) != 2:
		return []Fault{Faultf(path, "want [least, greatest], not a list of %d", len(span))}
	case !Finite(span[0]) || !Finite(span[1]) || span[0] > span[1]:
		return []Fault{Faultf(path, "%v is not [least, greatest]", span)}
	}
	return nil
}

func validLimits(test string, suspect, fail float64) []Fault {
	switch {
	case !Finite(suspect) || suspect < 0:
		return []Fault{Faultf(test+".suspect", "want a limit above 0; 0 is none")}
	case !Finite(fail) || fail < 0:
		return []Fault{Faultf(test+".fail", "want a limit above 0; 0 is none")}
	case fail > 0 && suspect > fail:
		return []Fault{Faultf(test+".fail", "fail is below suspect: nothing would be suspect")}
	}
	return nil
}

// A Calibration corrects a value before it is judged and stored: scale times
// what came, plus offset.
type Calibration struct {
	Scale  *float64 `json:"scale,omitempty" yaml:"scale"`   // default 1
	Offset float64  `json:"offset,omitempty" yaml:"offset"` // in the value's unit
	Since  *Instant `json:"since,omitempty" yaml:"since"`   // readings of before stay as they came; default: all
}

// Apply returns the calibrated number of a reading of time t.
func (c *Calibration) Apply(number float64, t time.Time) float64 {
	if c.Since != nil && t.Before(c.Since.Std()) {
		return number
	}
	if c.Scale != nil {
		number *= *c.Scale
	}
	return number + c.Offset
}

// Validate reports what cannot be meant.
func (c Calibration) Validate() []Fault {
	var faults []Fault
	if c.Scale != nil && (!Finite(*c.Scale) || *c.Scale == 0) {
		faults = append(faults, Faultf("scale", "scale %v is not a number other than 0", *c.Scale))
	}
	if !Finite(c.Offset) {
		faults = append(faults, Faultf("offset", "offset %v is not a number", c.Offset))
	}
	return faults
}

// An Instant is a time that configuration writes as 2026-03-14 (midnight in
// Vietnam) or 2026-03-14T09:30:00+07:00.
type Instant time.Time

// Std returns the standard library's form.
func (i Instant) Std() time.Time { return time.Time(i) }

// MarshalText writes RFC 3339.
func (i Instant) MarshalText() ([]byte, error) { return time.Time(i).MarshalText() }

// UnmarshalText reads a date or RFC 3339.
func (i *Instant) UnmarshalText(text []byte) error {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.ParseInLocation(layout, string(text), vietnam()); err == nil {
			*i = Instant(t)
			return nil
		}
	}
	return fmt.Errorf("%q is not a date like 2026-03-14 or a time like 2026-03-14T09:30:00+07:00", text)
}

// vietnam is UTC+7, without summer time.
func vietnam() *time.Location { return time.FixedZone("+07", 7*60*60) }

// A Period is a time in which a device, or one of its values, does not measure
// as usual: what comes has this quality then, and is not tested.
type Period struct {
	Value string     `json:"value,omitempty"` // level_m; "": all of the device
	State Quality    `json:"state"`           // Maintenance or Calibrating
	Since time.Time  `json:"since"`
	Until *time.Time `json:"until,omitempty"` // nil: until somebody ends it
	By    string     `json:"by"`
	Why   string     `json:"why"`
}

// Covers reports whether t lies within the period.
func (p *Period) Covers(t time.Time) bool {
	return !t.Before(p.Since) && (p.Until == nil || t.Before(*p.Until))
}

// validateTests checks what a device says of its values. Its keys are names of
// values, or kind.value where a name is not clear enough.
func (d *Device) validateTests(kinds *Catalogue) []Fault {
	var faults []Fault
	for _, name := range sortedKeys(d.Quality) {
		at := "quality." + name
		faults = append(faults, d.knownNumber(at, name, kinds)...)
		faults = append(faults, Under(at, d.Quality[name].Validate())...)
	}
	for _, name := range sortedKeys(d.Calibration) {
		at := "calibration." + name
		faults = append(faults, d.knownNumber(at, name, kinds)...)
		faults = append(faults, Under(at, d.Calibration[name].Validate())...)
	}
	return faults
}

func (d *Device) knownNumber(at, name string, kinds *Catalogue) []Fault {
	if kinds == nil {
		return nil
	}
	owners := kinds.Owners(name)
	value := name
	if kind, rest, ok := strings.Cut(name, "."); ok && len(owners) == 0 {
		if k := kinds.Kind(kind); k != nil && k.Quantity(rest) != nil {
			owners, value = []*Kind{k}, rest
		}
	}
	if len(owners) == 0 {
		return []Fault{Faultf(at, "%q is not a value of the catalogue: want a value like level_m, or kind.value", name)}
	}
	for _, k := range owners {
		if !k.Quantity(value).Words {
			return nil
		}
	}
	return []Fault{Faultf(at, "%q is a word; only numbers are tested", name)}
}

func sortedKeys[T any](m map[string]T) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
