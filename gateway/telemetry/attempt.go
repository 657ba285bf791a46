package telemetry

import "time"

// An Attempt is one attempt to tell a recipient of a transition of a warning.
type Attempt struct {
	ID        string    `json:"id"` // of the warning
	N         int       `json:"n"`  // of the transition: id/n is the idempotency key
	Recipient string    `json:"recipient"`
	Via       string    `json:"via"` // the protocol
	At        time.Time `json:"at"`  // when it began, by the machine's clock
	Seconds   float64   `json:"seconds"`
	Attempt   int       `json:"attempt"` // 1 for the first since the start of the gateway
	Accepted  bool      `json:"accepted"`
	Digest    string    `json:"digest,omitempty"` // key of the message that told it together with others
	Answer    string    `json:"answer,omitempty"` // of the recipient, or why it failed
}
