package rules

import (
	"slices"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// A Withheld is a condition that holds and is not raised, by design: its rule is
// muted or inhibited (ISA-18.2, suppressed by design).
type Withheld struct {
	Rule     string             `json:"rule"`
	Device   string             `json:"device"`
	Severity telemetry.Severity `json:"severity"`              // what it would be raised with
	Shown    telemetry.Severity `json:"shown"`                 // what it is raised with
	Muted    *time.Time         `json:"muted_until,omitempty"` // when the rule's mute ends
	By       []string           `json:"inhibited_by,omitempty"`
}

// Withheld returns what holds and is not raised now, by rule and device.
func (e *Engine) Withheld() []Withheld {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []Withheld{}
	for _, s := range e.shards {
		for b := range s.withheld {
			w := Withheld{Rule: b.rule.Name, Device: b.stream.device.id, Severity: b.level, Shown: telemetry.NoSeverity}
			if b.warning != nil {
				w.Shown = b.warning.severity
			}
			if b.unmute != never {
				until := unixTime(b.unmute)
				w.Muted = &until
			}
			if s.inhibits(b) {
				w.By = b.rule.InhibitedBy
			}
			out = append(out, w)
		}
	}
	slices.SortFunc(out, func(a, b Withheld) int {
		return strings.Compare(a.Rule+"\x00"+a.Device, b.Rule+"\x00"+b.Device)
	})
	return out
}
