package rules

import (
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// TestSitesOutliveForgottenDevices: the values of other kinds at a site are there
// also after a device that was not heard for long was forgotten.
func TestSitesOutliveForgottenDevices(t *testing.T) {
	engine := NewEngine(Options{Shards: 2})
	engine.Evaluate(epoch, control(t, readDocument(t, `
devices: [{id: gauge, site: bridge, kinds: [river], interval: 10m}, {id: bucket, site: bridge, kinds: [rain], interval: 10m}]
rules: [{name: rising, on: river, when: level_m > 2 && rain_1h_mm > 30}]`)))
	at := func(after time.Duration, device, kind, value string, number float64) []telemetry.Transition {
		return engine.Evaluate(epoch.Add(after), []telemetry.Reading{{
			Device: device, Kind: kind, Time: epoch.Add(after), Values: []telemetry.Value{{Name: value, Number: number}},
		}})
	}
	at(time.Second, "passes-by", "river", "level_m", 1)
	for d := range 10 {
		day := time.Duration(d) * 24 * time.Hour
		at(day+time.Minute, "bucket", "rain", "rain_1h_mm", 40)
		if raised := at(day+2*time.Minute, "gauge", "river", "level_m", 3); len(raised) != 1 || raised[0].State != telemetry.Active {
			t.Fatalf("day %d, %d devices: the rule does not see the rain: %+v", d, len(engine.devices), raised)
		}
		if ended := at(day+3*time.Minute, "gauge", "river", "level_m", 1); len(ended) != 1 {
			t.Fatalf("day %d: %+v", d, ended)
		}
	}
	if len(engine.devices) != 2 {
		t.Errorf("%d devices: the test shows nothing", len(engine.devices))
	}
}
