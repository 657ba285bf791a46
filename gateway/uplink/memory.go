package uplink

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// Bounds of what is remembered.
const (
	maxMembers = 10_000 // gateways
	maxEpochs  = 8      // logs of a gateway
)

// A memory is how far each gateway's logs have been taken.
type memory struct {
	Members map[string]*member `json:"gateways"`
}

// A member is one gateway that pushes.
type member struct {
	Epochs []stand `json:"epochs"` // the one in force last
}

// A stand is how far the logs of one epoch have been taken.
type stand struct {
	Epoch string `json:"epoch"`
	// Readings is up to where all readings are on disk.
	Readings Position  `json:"readings"`
	Warnings *Position `json:"warnings,omitempty"`
	// Beyond has the devices whose readings are on disk up to further on: of a piece
	// that has reached some partitions and others not. A piece has all readings of a
	// device in one partition, whichever that is.
	Beyond map[string]Position `json:"beyond,omitempty"`

	found []found // while the log is read
}

// A found frame has readings of a piece of which other partitions may lack theirs.
type found struct {
	to    Position
	frame func() ([]telemetry.Reading, error)
}

// complete notes that all readings up to a position are on disk.
func (s *stand) complete(to Position) {
	if to.beyond(s.Readings) {
		s.Readings = to
	}
	maps.DeleteFunc(s.Beyond, func(_ string, at Position) bool { return !at.beyond(s.Readings) })
	s.found = slices.DeleteFunc(s.found, func(f found) bool { return !f.to.beyond(s.Readings) })
}

// has notes that the readings of a device are on disk up to a position.
func (s *stand) has(device string, to Position) {
	if !to.beyond(s.Readings) || !to.beyond(s.Beyond[device]) {
		return
	}
	if s.Beyond == nil {
		s.Beyond = map[string]Position{}
	}
	s.Beyond[strings.Clone(device)] = to
}

// of returns the stand of an epoch, or nil.
func (m *memory) of(gateway, epoch string) *stand {
	if known := m.Members[gateway]; known != nil {
		for i := range known.Epochs {
			if known.Epochs[i].Epoch == epoch {
				return &known.Epochs[i]
			}
		}
	}
	return nil
}

// enter makes an epoch that in force and returns its stand; nil when there is no room
// for another gateway.
func (m *memory) enter(gateway, epoch string) *stand {
	known := m.Members[gateway]
	if known == nil {
		if len(m.Members) >= maxMembers {
			return nil
		}
		known = &member{}
		m.Members[gateway] = known
	}
	last := len(known.Epochs) - 1
	if last >= 0 && known.Epochs[last].Epoch == epoch {
		return &known.Epochs[last]
	}
	s := stand{Epoch: epoch}
	for i := range known.Epochs {
		if known.Epochs[i].Epoch == epoch {
			s = known.Epochs[i]
			known.Epochs = append(known.Epochs[:i], known.Epochs[i+1:]...)
			break
		}
	}
	known.Epochs = append(known.Epochs, s)
	if n := len(known.Epochs); n > maxEpochs {
		known.Epochs = known.Epochs[n-maxEpochs:]
	}
	return &known.Epochs[len(known.Epochs)-1]
}

// The values of a record of the kind _uplink. Those of after are there when the piece
// went to several partitions, each of which has a record: all before it is on disk
// everywhere then.
const (
	valueEpoch    = "epoch"
	valueSeq      = "seq"
	valueLine     = "line"
	valueReceived = "received"
	prefixAfter   = "after_"
)

// record is what is written with readings of a gateway: that they are taken, up to a
// position. after is where a piece of several partitions begins, else nil.
func record(gateway, epoch string, to Position, after *Position, now time.Time) telemetry.Reading {
	r := telemetry.Reading{Device: gateway, Site: gateway, Kind: telemetry.KindUplink, Time: now, Values: []telemetry.Value{{Name: valueEpoch, Text: epoch}}}
	put := func(prefix string, p Position) {
		r.Values = append(r.Values, telemetry.Value{Name: prefix + valueSeq, Number: float64(p.Seq)}, telemetry.Value{Name: prefix + valueLine, Number: float64(p.Line)},
			// A float64 has not the digits of a time in nanoseconds.
			telemetry.Value{Name: prefix + valueReceived, Text: strconv.FormatInt(p.Received, 10)})
	}
	put("", to)
	if after != nil {
		put(prefixAfter, *after)
	}
	return r
}

// position reads a position of a record.
func position(r *telemetry.Reading, prefix string) (p Position, ok bool) {
	seq, has := r.Number(prefix + valueSeq)
	line, also := r.Number(prefix + valueLine)
	received, err := strconv.ParseInt(r.Text(prefix+valueReceived), 10, 64)
	return Position{Seq: uint64(seq), Line: int(line), Received: received}, has && also && err == nil
}

// fold takes in a record of the log; frame decodes the frame that has it. When all
// are taken in, conclude is called.
func (m *memory) fold(r *telemetry.Reading, frame func() ([]telemetry.Reading, error)) {
	to, ok := position(r, "")
	epoch := r.Text(valueEpoch)
	if r.Kind != telemetry.KindUplink || !ok || epoch == "" {
		return
	}
	s := m.enter(r.Device, epoch)
	if s == nil {
		return
	}
	after, several := position(r, prefixAfter)
	if !several {
		s.complete(to)
		return
	}
	s.complete(after)
	if to.beyond(s.Readings) {
		s.found = append(s.found, found{to, frame})
	}
}

// conclude looks into the frames whose pieces may have reached some partitions only.
// One that cannot be decoded is passed over as by the log's followers.
func (m *memory) conclude() {
	for gateway, known := range m.Members {
		for i := range known.Epochs {
			s := &known.Epochs[i]
			for _, f := range s.found {
				readings, _ := f.frame()
				for j := range readings {
					if r := &readings[j]; !r.Control() && (r.Source == source(gateway) || r.Source == "") {
						s.has(r.Device, f.to)
					}
				}
			}
			s.found = nil
		}
	}
}

// A checkpoint is the memory as it was at a frame of each partition of the log.
type checkpoint struct {
	Version int      `json:"version"`
	At      uint64   `json:"at"`                  // of partition 0
	Others  []uint64 `json:"at_others,omitempty"` // of the others
	memory
}

const checkpointVersion = 1

func (m *memory) encode(at []uint64) ([]byte, error) {
	return json.Marshal(checkpoint{Version: checkpointVersion, At: at[0], Others: at[1:], memory: *m})
}

// decodeCheckpoint reads a checkpoint of a log with so many partitions.
func decodeCheckpoint(text []byte, partitions int) (m memory, at []uint64, err error) {
	c, at := checkpoint{Version: checkpointVersion}, make([]uint64, partitions)
	if len(text) > 0 {
		if err := json.Unmarshal(text, &c); err != nil {
			return memory{}, at, fmt.Errorf("read how far gateways have pushed: %w", err)
		}
		if c.Version != checkpointVersion {
			return memory{}, at, fmt.Errorf("read how far gateways have pushed: version %d, want %d", c.Version, checkpointVersion)
		}
	}
	if c.Members == nil {
		c.Members = map[string]*member{}
	}
	at[0] = c.At
	copy(at[1:], c.Others)
	return c.memory, at, nil
}
