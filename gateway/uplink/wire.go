package uplink

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"haidang/gateway/telemetry"
)

// Path is where a centre takes what gateways push; behind it stands one of hello,
// readings and warnings.
const Path = "/api/v1/uplink/"

// versionHeader names the version of the format in each request.
const (
	versionHeader = "Haidang-Uplink"
	version       = "1"
)

// Bounds of a request.
const (
	maxParcel = 256 << 10 // bytes of lines that a sender puts into a request, but for one longer line
	maxBody   = 1 << 20   // that a receiver takes, before and after it is unpacked
	maxTold   = 256       // warnings in a request
)

// A Position is how far a log has been taken: up to the frame Seq, of which Line lines
// are taken, all when it is 0. Lines of the log's own kinds do not count.
type Position struct {
	Seq      uint64 `json:"seq"`
	Line     int    `json:"line,omitempty"`
	Received int64  `json:"received,omitempty"` // of the frame, Unix ns
}

// same reports whether two positions are one.
func (p Position) same(o Position) bool { return p.Seq == o.Seq && p.Line == o.Line }

// beyond reports whether p is behind o: there is something that p has and o has not.
func (p Position) beyond(o Position) bool {
	if p.Seq != o.Seq {
		return p.Seq > o.Seq
	}
	return o.Line != 0 && (p.Line == 0 || p.Line > o.Line)
}

// next is the sequence to go on from.
func (p Position) next() uint64 {
	if p.Line > 0 {
		return p.Seq
	}
	return p.Seq + 1
}

// State is what a gateway says of itself.
type State struct {
	Version      string  `json:"version"`
	LagFrames    float64 `json:"lag_frames"`          // readings that the centre does not have
	LagSeconds   float64 `json:"lag_s"`               // age of the oldest of them
	WarningsLag  float64 `json:"warnings_lag_frames"` // the same of warnings
	ReadingsPerS float64 `json:"readings_per_s"`      // received in the field, since the hello before
	SpoolBytes   float64 `json:"spool_bytes"`
	SpoolMax     float64 `json:"spool_max_bytes"`
	Accepted     float64 `json:"readings_total"` // since the start
}

// A Hello says who pushes, and how he is.
type Hello struct {
	Gateway string    `json:"gateway"`
	Epoch   string    `json:"epoch"`
	Was     string    `json:"was,omitempty"` // the epoch of the same log before its end was lost
	Now     time.Time `json:"now"`           // wall clock
	Beat    bool      `json:"beat"`          // to be kept as a reading
	State   State     `json:"state"`
}

// A Welcome says how far the centre has what the gateway pushes; nil: it knows nothing
// of that log.
type Welcome struct {
	Gateway  string    `json:"gateway"` // the centre's
	Readings *Position `json:"readings,omitempty"`
	Warnings *Position `json:"warnings,omitempty"`
	Was      *Position `json:"was,omitempty"` // of the readings of Hello.Was
}

// A parcel stands at the head of readings and of warnings.
type parcel struct {
	Gateway string   `json:"gateway"`
	Epoch   string   `json:"epoch"`
	After   Position `json:"after"` // of readings
	To      Position `json:"to"`    // after it
	Lost    uint64   `json:"lost,omitempty"`
	// All says that the told warnings are all that last: others of the gateway are over.
	All bool `json:"all,omitempty"`
}

// A told warning is one as it stands after a step in the field.
type told struct {
	Seq     uint64            `json:"seq"`
	Warning telemetry.Warning `json:"warning"`
}

// A refusal is the answer when a request is not taken.
type refusal struct {
	Reason string `json:"reason"`
	Detail string `json:"detail"`
	status int
}

func (r *refusal) Error() string { return r.Detail }

func refuse(status int, reason, format string, args ...any) *refusal {
	return &refusal{Reason: reason, Detail: fmt.Sprintf(format, args...), status: status}
}

// Reasons of refusals.
const (
	reasonVersion  = "version"       // another version of the format
	reasonMethod   = "method"        // not a POST
	reasonPath     = "path"          // none of the three requests
	reasonName     = "name"          // the gateway's name cannot be one, or not that of this account
	reasonBody     = "body"          // it cannot be read
	reasonTooLarge = "too_large"     // more than maxBody
	reasonPlace    = "place"         // not after what the centre has
	reasonTwo      = "two_gateways"  // another log pushes under this name
	reasonFull     = "full"          // the centre's log does not take it now
	reasonStarting = "starting"      // the centre
	reasonMoving   = "moving"        // to another of its machines: none has it now
	reasonMany     = "many_gateways" // more than maxMembers
)

// passes reports whether nobody need do anything about a refusal.
func (r *refusal) passes() bool { return r.Reason == reasonStarting || r.Reason == reasonMoving }

// A part is some lines of one frame of the field's log.
type part struct {
	seq      uint64
	from     int // lines of it that were taken before
	received int64
	lines    []byte
}

func (p part) appendHead(dst []byte) []byte {
	return fmt.Appendf(dst, "#%d %d %d\n", p.seq, p.from, p.received)
}

// splitHead cuts the first line off a body and decodes it.
func splitHead(body []byte, into any) (rest []byte, err error) {
	head, rest, found := bytes.Cut(body, []byte{'\n'})
	if !found {
		return nil, fmt.Errorf("there is no line of JSON at its head")
	}
	if err := json.Unmarshal(head, into); err != nil {
		return nil, fmt.Errorf("its head: %w", err)
	}
	return rest, nil
}

// splitParts cuts the body of readings into the parts of frames.
func splitParts(body []byte) ([]part, error) {
	var parts []part
	for len(body) > 0 {
		if body[0] != '#' {
			return nil, fmt.Errorf("frame %d of it: want #<seq> <from> <received>", len(parts)+1)
		}
		head, rest, found := bytes.Cut(body[1:], []byte{'\n'})
		words := bytes.Split(head, []byte{' '})
		if !found || len(words) != 3 {
			return nil, fmt.Errorf("frame %d of it: want #<seq> <from> <received>", len(parts)+1)
		}
		var numbers [3]int64
		for i, word := range words {
			n, err := strconv.ParseInt(string(word), 10, 64)
			if err != nil || n < 0 {
				return nil, fmt.Errorf("frame %d of it: %q is not a number from 0", len(parts)+1, word)
			}
			numbers[i] = n
		}
		p := part{seq: uint64(numbers[0]), from: int(numbers[1]), received: numbers[2]}
		end := 0
		for end < len(rest) && rest[end] != '#' {
			next := bytes.IndexByte(rest[end:], '\n')
			if next < 0 {
				return nil, fmt.Errorf("frame %d of it: a line has no end", len(parts)+1)
			}
			end += next + 1
		}
		p.lines, body = rest[:end], rest[end:]
		parts = append(parts, p)
	}
	return parts, nil
}

// stays reports whether a transition is of a warning that the centre is not told of.
func stays(t *telemetry.Transition) bool {
	return t.Order != nil || t.Shadow || t.Exercise || t.State == telemetry.Pending || t.State == telemetry.OutOfService
}

// travels reports whether a transition of the field is told to the centre: a step of
// the rules, or that what lasts is back in service.
func travels(t *telemetry.Transition) bool {
	return !stays(t) && (t.Act == nil || t.Act.Do == telemetry.PutBack)
}
