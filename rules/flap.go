package rules

import (
	"fmt"
	"slices"

	"haidang/gateway/telemetry"
)

// flapping is what a binding keeps of its rises, and whether they are too many.
type flapping struct {
	rises []rise // of the last Flap.Within, the oldest first; fewer than Flap.Raises to each severity
	on    bool
	until int64 // when it is over, if nothing changes before
}

// A rise is one to a severity. Steps of one flood are rises to different ones.
type rise struct {
	at int64 // log time
	to telemetry.Severity
}

// flapping reports whether the binding's warning stands for too many changes.
func (b *binding) flapping() bool { return b.flap != nil && b.flap.on }

// rise counts that the warning rises to a severity, and begins to hold it when
// that was too often.
func (b *binding) rise(to telemetry.Severity, now int64) {
	limit := &b.rule.flap
	if limit.Raises == 0 || b.flapping() {
		return
	}
	if b.flap == nil {
		b.flap = &flapping{}
	}
	k := b.flap
	k.rises = slices.DeleteFunc(k.rises, func(r rise) bool { return now-r.at >= int64(limit.Within) })
	k.rises = append(k.rises, rise{now, to})
	same := 0
	for _, r := range k.rises {
		if r.to == to {
			same++
		}
	}
	if same >= limit.Raises {
		k.on, k.until = true, now+int64(limit.Quiet)
	}
}

// steady returns the severity that the warning should have: that of the latches,
// or while it flaps the highest that it had. calmed says that flapping is over.
func (b *binding) steady(level, shown telemetry.Severity, now int64) (target telemetry.Severity, calmed bool) {
	if !b.flapping() {
		return level, false
	}
	k := b.flap
	if now >= k.until || b.rule.flap.Raises == 0 {
		k.on, k.rises = false, nil
		return level, shown != telemetry.NoSeverity
	}
	if level != b.level {
		k.until = now + int64(b.rule.flap.Quiet)
	}
	return max(level, shown), false
}

// remark is what a message adds of a warning that flaps.
func (b *binding) remark(vi bool) string {
	if !b.flapping() {
		return ""
	}
	limit := &b.rule.flap
	if vi {
		return fmt.Sprintf(" (chập chờn: %d lần trong %s; giữ nguyên đến khi yên %s)", limit.Raises, limit.Within, limit.Quiet)
	}
	return fmt.Sprintf(" (unstable: %d times within %s; stays until nothing changes for %s)", limit.Raises, limit.Within, limit.Quiet)
}
