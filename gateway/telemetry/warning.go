package telemetry

import (
	"fmt"
	"time"
)

// Severity grades a warning with the words of CAP 1.2 (section 3.2.2,
// severity); 0 is none.
type Severity uint8

// The severities, from the least to the gravest.
const (
	NoSeverity Severity = iota
	Minor
	Moderate
	Severe
	Extreme
)

var severityNames = [...]string{"none", "minor", "moderate", "severe", "extreme"}

// String returns the severity's word.
func (s Severity) String() string {
	if int(s) < len(severityNames) {
		return severityNames[s]
	}
	return fmt.Sprintf("severity(%d)", uint8(s))
}

// Text returns the severity as people read it within a sentence.
func (s Severity) Text() Text {
	switch s {
	case Minor:
		return Text{VI: "nhẹ", EN: "minor"}
	case Moderate:
		return Text{VI: "trung bình", EN: "moderate"}
	case Severe:
		return Text{VI: "nghiêm trọng", EN: "severe"}
	case Extreme:
		return Text{VI: "đặc biệt nghiêm trọng", EN: "extreme"}
	}
	return Text{VI: "không rõ", EN: s.String()}
}

// MarshalText writes the severity's word.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads minor, moderate, severe, extreme or none.
func (s *Severity) UnmarshalText(text []byte) error {
	for i, name := range severityNames {
		if string(text) == name {
			*s = Severity(i)
			return nil
		}
	}
	return fmt.Errorf("severity %q is not one of minor, moderate, severe, extreme", text)
}

// State is where a warning stands in its life (ISA-18.2).
type State string

// The states of a warning.
const (
	Pending      State = "pending"        // its condition holds, but not yet for long enough; never sent
	Active       State = "active"         // raised, nobody has acknowledged it
	Acknowledged State = "acknowledged"   // raised, a named person has taken it
	Shelved      State = "shelved"        // raised, put aside by an operator until a set time
	Returned     State = "returned"       // over, and nobody has acknowledged it: of a rule that latches
	OutOfService State = "out-of-service" // raised while its device or rule is out of service; see Order
	Cleared      State = "cleared"        // over
)

// A Warning is what a rule raises for a device, as it stands after one
// transition. This is the form of the webhook, of MQTT and of the API.
type Warning struct {
	ID string `json:"id"` // of [a-z0-9-]; the same in production, test and backtest
	N  int    `json:"n"`  // number of this transition, from 1; id/n is its key

	Rule   string `json:"rule"`
	Device string `json:"device"`
	Site   string `json:"site"`
	Kind   string `json:"kind"`

	State    State    `json:"state"`
	Severity Severity `json:"severity"` // of a cleared warning: the last one it had

	Start time.Time `json:"start"` // log time at which it was raised
	At    time.Time `json:"at"`    // log time of this transition

	Values    map[string]float64 `json:"values"`              // what the rule saw
	Threshold *float64           `json:"threshold,omitempty"` // what the value was compared with, where there is one
	Message   Text               `json:"message"`
	AckedBy   string             `json:"acked_by,omitempty"`

	AssignedTo string `json:"assigned_to,omitempty"` // the person or agency that it was handed over to
	FalseAlarm bool   `json:"false_alarm,omitempty"` // an operator says that there was nothing

	// Expires is the end of shelving, or of being out of service where that has one.
	Expires *time.Time `json:"expires,omitempty"`
	// To are the recipients that the rule and the routes name, and those that were
	// told before; none means all.
	To []string `json:"to,omitempty"`

	// How it came about: a hash of what the rule means, the condition of the level
	// in force, and the quality of the values where it is not good.
	RuleVersion string             `json:"rule_version,omitempty"`
	Expression  string             `json:"expression,omitempty"`
	Quality     map[string]Quality `json:"quality,omitempty"`

	// The gateway that raised it where that is another one, and when this transition
	// happened there: At is when it came here.
	Gateway  string    `json:"gateway,omitempty"`
	Happened time.Time `json:"happened,omitzero"`

	// What delivered the newest reading of the rule's kind from the device, and of
	// the other kinds that the rule names. Empty where that is not known, as of
	// readings from the store.
	Source  string            `json:"source,omitempty"`
	Sources map[string]string `json:"sources,omitempty"` // by kind

	Flapping bool `json:"flapping,omitempty"` // it changed too often, and stays as it is until it is quiet
	Latch    bool `json:"latch,omitempty"`    // it stands until it is acknowledged
	Quiet    bool `json:"quiet,omitempty"`    // nobody was told of it: it was raised out of service
	Shadow   bool `json:"shadow,omitempty"`   // of a rule on trial: for nobody
	Exercise bool `json:"exercise,omitempty"` // of a drill: every text says so, and nothing public is told
}

// Key is the idempotency key of the transition: id/n.
func (w *Warning) Key() string { return fmt.Sprintf("%s/%d", w.ID, w.N) }

// A Transition is one record of the warnings log: the warning as it stands
// after it, and what brought it about: a step of the engine or an operator's act.
// One with an Order is no transition of a warning: it has no ID.
type Transition struct {
	Warning
	Step  int    `json:"step,omitempty"` // the engine's own count of transitions of this warning, from 1
	Act   *Act   `json:"act,omitempty"`
	Order *Order `json:"order,omitempty"`

	Chase *Chase   `json:"chase,omitempty"` // of a warning that nobody has acknowledged
	Only  []string `json:"only,omitempty"`  // the recipients that this transition is news for; none means all of To
}

// An Act is what an operator does with a warning, or what the gateway does that
// is no step of the engine: then By is Gateway.
type Act struct {
	ID    string     `json:"id"`              // of the warning
	N     int        `json:"n"`               // the transition that the operator saw
	Do    Deed       `json:"do"`              // what
	By    string     `json:"by"`              // who
	At    time.Time  `json:"at"`              // when
	Text  string     `json:"text,omitempty"`  // why
	To    string     `json:"to,omitempty"`    // of assign: the person or agency in charge from now on
	Until *time.Time `json:"until,omitempty"` // end of shelving
}

// Gateway is the By of an act that no person did.
const Gateway = "haidang"

// Deed is the verb of an Act.
type Deed string

// The deeds of operators.
const (
	Ack      Deed = "ack"
	Shelve   Deed = "shelve"
	Unshelve Deed = "unshelve"
	Comment  Deed = "comment"
	Assign   Deed = "assign"      // hand over to a person or an agency
	False    Deed = "false-alarm" // there was nothing; also of what is cleared
	Genuine  Deed = "genuine"     // takes a false-alarm back
)

// The deeds of the gateway.
const (
	Escalate Deed = "escalate" // nobody has acknowledged in time: more are told
	Remind   Deed = "remind"   // nobody has acknowledged: they are told again
	Failover Deed = "failover" // a recipient cannot be reached: another is told instead
	TakeOut  Deed = "take-out" // its device or rule goes out of service
	PutBack  Deed = "put-back" // and comes back while the warning lasts
)

// Deeds returns those of operators.
func Deeds() []Deed { return []Deed{Ack, Shelve, Unshelve, Comment, Assign, False, Genuine} }

// A Chase is what was done about a warning because nobody acknowledged it. It is
// part of each transition, so that a restart goes on where it was.
type Chase struct {
	N        int       `json:"n"`                 // the transition that is news: it became active with it, or rose
	At       time.Time `json:"at"`                // log time of that
	Since    time.Time `json:"since"`             // log time since which it is active and nobody has acknowledged it
	Done     []string  `json:"done,omitempty"`    // escalations and failovers, by name
	Reminded time.Time `json:"reminded,omitzero"` // log time of the last reminder
}
