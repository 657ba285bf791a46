package registry

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"haidang/gateway/telemetry"
)

// merge returns the devices with what was changed of them.
func merge(configured []telemetry.Device, changes map[string]change) []telemetry.Device {
	out := slices.Clone(configured)
	seen := map[string]bool{}
	for i := range out {
		seen[out[i].ID] = true
		if c, ok := changes[out[i].ID]; ok {
			c.apply(&out[i])
		}
	}
	for _, id := range slices.Sorted(maps.Keys(changes)) {
		if c := changes[id]; c.New && !seen[id] {
			d := telemetry.Device{ID: id}
			c.apply(&d)
			out = append(out, d)
		}
	}
	return out
}

func (c change) apply(d *telemetry.Device) {
	d.Facts = maps.Clone(d.Facts)
	for _, name := range slices.Sorted(maps.Keys(c.Set)) {
		_ = set(d, name, c.Set[name]) // it was possible when it was taken in
	}
}

// set gives a device the value called name.
func set(d *telemetry.Device, name string, value any) error {
	word, isWord := value.(string)
	number, isNumber := value.(float64)
	switch name {
	case "name", "owner":
		if !isWord || word == "" || len(word) > 256 {
			return fmt.Errorf("%s: want a word of at most 256 bytes, not %v", name, value)
		}
		if name == "name" {
			d.Name = word
		} else {
			d.Owner = word
		}
		return nil
	case "interval":
		if !isWord {
			return fmt.Errorf("interval: want a duration like \"10m\", not %v", value)
		}
		interval, err := telemetry.ParseDuration(word)
		if err != nil || interval <= 0 {
			return fmt.Errorf("interval: want a duration like \"10m\", not %q", word)
		}
		d.Interval = interval
		return nil
	case "lat", "lon":
		if !isNumber {
			return fmt.Errorf("%s: want degrees as a number, not %v", name, value)
		}
		if name == "lat" {
			d.Lat = &number
		} else {
			d.Lon = &number
		}
		return nil
	}
	fact, ok := strings.CutPrefix(name, "facts.")
	if !ok {
		return fmt.Errorf("%s: only name, owner, interval, lat, lon and facts can be changed at run time", name)
	}
	if !telemetry.ValidName(fact) {
		return fmt.Errorf("%s: a fact has a name of letters, digits and ._:-", name)
	}
	switch value.(type) {
	case float64, bool, string:
	default:
		return fmt.Errorf("%s: want a number, a word, true or false, not %v", name, value)
	}
	if len(word) > 1024 {
		return fmt.Errorf("%s: a word has at most 1024 bytes", name)
	}
	if d.Facts == nil {
		d.Facts = map[string]any{}
	}
	d.Facts[fact] = value
	return nil
}
