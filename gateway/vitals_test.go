package main

import (
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
	"haidang/gateway/vitals"
)

// TestAlarmLevels are the alarm levels that dashboards draw, and what of them a
// level has reached.
func TestAlarmLevels(t *testing.T) {
	facts := map[string]any{"alarm1_m": 1.0, "alarm2_m": 2.0, "alarm3_m": 3.5}
	for name, c := range map[string]struct {
		facts   map[string]any
		level   any
		quality string
		quiet   bool
		want    string
	}{
		"between II and III":        {facts: facts, level: 2.4, want: "alarm1_m=1,alarm2_m=2,alarm3_m=3.5,level_m=2.4,alarm=2"},
		"exactly III":               {facts: facts, level: 3.5, want: "level_m=3.5,alarm=3"},
		"below all":                 {facts: facts, level: 0.2, want: "level_m=0.2,alarm=0"},
		"a level that is bad":       {facts: facts, level: 99.0, quality: "bad", want: "alarm3_m=3.5 "},
		"silent":                    {facts: facts, level: 3.6, quiet: true, want: "alarm3_m=3.5 "},
		"never heard":               {facts: facts, want: "alarm3_m=3.5 "},
		"one level only":            {facts: map[string]any{"alarm2_m": 2}, level: 2.4, want: "alarm2_m=2,level_m=2.4,alarm=2"},
		"no alarm levels":           {level: 2.4, want: "state=0 "},
		"a level that is no number": {facts: map[string]any{"alarm1_m": "?"}, level: 2.4, want: "state=0 "},
	} {
		t.Run(name, func(t *testing.T) {
			d := &deviceState{}
			if c.level != nil {
				d.Latest = map[string]latestState{riverKind: {Values: map[string]any{levelValue: c.level}, Quality: map[string]string{levelValue: c.quality}}}
			}
			line := vitals.NewLine(vitals.Device, "kim-long", "kim-long").Number("state", 0)
			d.addAlarms(line, &telemetry.Device{ID: "kim-long", Facts: c.facts}, c.quiet)
			if got := string(line.AppendTo(nil, time.Unix(0, 7))); !strings.Contains(got, c.want) || strings.Contains(c.want, " ") && !strings.HasSuffix(got, c.want+"7\n") {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
