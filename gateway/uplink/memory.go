package uplink

import (
	"encoding/json"
	"fmt"
	"strconv"
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
	Epoch    string    `json:"epoch"`
	Readings Position  `json:"readings"`
	Warnings *Position `json:"warnings,omitempty"`
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

// The values of a record of the kind _uplink.
const (
	valueEpoch    = "epoch"
	valueSeq      = "seq"
	valueLine     = "line"
	valueReceived = "received"
)

// record is what is written with readings of a gateway: that they are taken.
func record(gateway, epoch string, p Position, now time.Time) telemetry.Reading {
	return telemetry.Reading{Device: gateway, Site: gateway, Kind: telemetry.KindUplink, Time: now, Values: []telemetry.Value{
		{Name: valueEpoch, Text: epoch},
		{Name: valueSeq, Number: float64(p.Seq)},
		{Name: valueLine, Number: float64(p.Line)},
		// A float64 has not the digits of a time in nanoseconds.
		{Name: valueReceived, Text: strconv.FormatInt(p.Received, 10)},
	}}
}

// fold takes in a record of the log.
func (m *memory) fold(r *telemetry.Reading) {
	seq, ok := r.Number(valueSeq)
	line, also := r.Number(valueLine)
	received, err := strconv.ParseInt(r.Text(valueReceived), 10, 64)
	epoch := r.Text(valueEpoch)
	if r.Kind != telemetry.KindUplink || !ok || !also || err != nil || epoch == "" {
		return
	}
	if s := m.enter(r.Device, epoch); s != nil {
		s.Readings = Position{Seq: uint64(seq), Line: int(line), Received: received}
	}
}

// A checkpoint is the memory as it was at a frame of the log.
type checkpoint struct {
	Version int    `json:"version"`
	At      uint64 `json:"at"` // the frame
	memory
}

const checkpointVersion = 1

func (m *memory) encode(at uint64) ([]byte, error) {
	return json.Marshal(checkpoint{Version: checkpointVersion, At: at, memory: *m})
}

func decodeCheckpoint(text []byte) (memory, uint64, error) {
	c := checkpoint{Version: checkpointVersion}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &c); err != nil {
			return memory{}, 0, fmt.Errorf("read how far gateways have pushed: %w", err)
		}
		if c.Version != checkpointVersion {
			return memory{}, 0, fmt.Errorf("read how far gateways have pushed: version %d, want %d", c.Version, checkpointVersion)
		}
	}
	if c.Members == nil {
		c.Members = map[string]*member{}
	}
	return c.memory, c.At, nil
}
