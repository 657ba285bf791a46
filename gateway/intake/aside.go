package intake

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sort"
	"time"

	"haidang/gateway/telemetry"
)

// An aside is a reading as a dead letter keeps it, so that people can read it
// and it can be taken in again.
type aside struct {
	Device    string                       `json:"device"`
	Kind      string                       `json:"kind"`
	Time      *time.Time                   `json:"time,omitempty"` // the device's own
	Quality   telemetry.Quality            `json:"quality,omitempty"`
	Values    map[string]any               `json:"values"`
	Qualities map[string]telemetry.Quality `json:"qualities,omitempty"`
	Tags      map[string]string            `json:"tags,omitempty"`
}

func asideOf(r *telemetry.Reading) []byte {
	a := aside{Device: r.Device, Kind: r.Kind, Quality: r.Quality, Values: map[string]any{}}
	if !r.Time.IsZero() {
		a.Time = &r.Time
	}
	for i := range r.Values {
		v := &r.Values[i]
		switch {
		case v.Text != "":
			a.Values[v.Name] = v.Text
		case telemetry.Finite(v.Number):
			a.Values[v.Name] = v.Number
		default:
			a.Values[v.Name] = fmt.Sprint(v.Number)
		}
		if v.Quality != telemetry.Good {
			if a.Qualities == nil {
				a.Qualities = map[string]telemetry.Quality{}
			}
			a.Qualities[v.Name] = v.Quality
		}
	}
	for _, t := range r.Tags {
		if a.Tags == nil {
			a.Tags = map[string]string{}
		}
		a.Tags[t.Key] = t.Value
	}
	text, err := json.Marshal(a)
	if err != nil { // a time beyond the year 9999
		return fmt.Appendf(nil, "%+v", *r)
	}
	return text
}

// ParseAside returns the reading that the intake set aside, and false when the
// letter holds something else, or not all of it.
func ParseAside(letter *telemetry.DeadLetter) (telemetry.Reading, bool) {
	var a aside
	decoder := json.NewDecoder(bytes.NewReader(letter.Bytes))
	decoder.DisallowUnknownFields()
	if decoder.Decode(&a) != nil || letter.Place != a.Device+"/"+a.Kind || a.Device == "" {
		return telemetry.Reading{}, false
	}
	r := telemetry.Reading{Device: a.Device, Kind: a.Kind, Quality: a.Quality}
	if a.Time != nil {
		r.Time = *a.Time
	}
	for name, value := range a.Values {
		v := telemetry.Value{Name: name, Quality: a.Qualities[name]}
		switch value := value.(type) {
		case float64:
			v.Number = value
		case string:
			v.Text = value
		default:
			return telemetry.Reading{}, false
		}
		r.Values = append(r.Values, v)
	}
	sort.Slice(r.Values, func(i, j int) bool { return r.Values[i].Name < r.Values[j].Name })
	for key, value := range a.Tags {
		r.Tags = append(r.Tags, telemetry.Tag{Key: key, Value: value})
	}
	return r, true
}

// Refusal returns why a reading would be set aside, one word and a sentence; ""
// when it would be taken.
func (in *Intake) Refusal(r *telemetry.Reading) (reason, detail string) {
	known := &in.known.Load().Known
	if reason, detail = in.check(known, r); reason != "" || in.unknownDevices() == UnknownAccept && !in.isRefused(r.Device) {
		return reason, detail
	}
	if _, stranger := in.ContactOf(r.Device); stranger {
		return in.unadmitted(r.Device)
	}
	return "", ""
}
