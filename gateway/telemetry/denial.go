package telemetry

import "time"

// Reasons why somebody is denied, each one word for counting.
const (
	DeniedMissing   = "no_credentials"  // nothing was offered
	DeniedWrong     = "bad_credentials" // unknown name or wrong secret: never told apart
	DeniedExpired   = "expired"         // a token or a certificate past its time
	DeniedSlow      = "slow_down"       // too many wrong passwords from this address
	DeniedBusy      = "busy"            // too many passwords are being checked
	DeniedForbidden = "forbidden"       // known, but may not do this
)

// A Denial is the error for somebody who may not do something.
type Denial struct {
	Reason string
	Detail string // a sentence for the caller; it names no secret
	// Until is when a wrong password is to be answered, no sooner, so that
	// guessing takes time; zero: at once.
	Until time.Time
	// After is how long the caller should wait before the next try; 0: no matter.
	After time.Duration
}

// Error returns the detail.
func (d *Denial) Error() string { return d.Detail }

// Status is the HTTP status code (RFC 9110) of the denial.
func (d *Denial) Status() int {
	switch d.Reason {
	case DeniedSlow:
		return 429
	case DeniedBusy:
		return 503
	case DeniedForbidden:
		return 403
	}
	return 401
}

// Forbidden is the denial of somebody who is known.
func Forbidden(detail string) *Denial { return &Denial{Reason: DeniedForbidden, Detail: detail} }
