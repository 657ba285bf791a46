package ioc

import "haidang/gateway/telemetry"

// A Class says which transitions a Sender is for. Grave ones have a follower of
// their own, so that an escalation overtakes what lies before it.
type Class uint8

// The classes.
const (
	All   Class = iota // every transition: one follower for a recipient
	Grave              // severity severe and extreme
	Rest               // the other severities
)

var classNames = [...]string{"all", "grave", "rest"}

// String returns the class's word, as in metrics and in names of followers.
func (c Class) String() string { return classNames[c] }

// Has reports whether a transition of this severity belongs to the class. A
// cleared warning keeps the severity it had, so its end is told where its
// height was told.
func (c Class) Has(severity telemetry.Severity) bool {
	switch c {
	case Grave:
		return severity >= telemetry.Severe
	case Rest:
		return severity < telemetry.Severe
	}
	return true
}
