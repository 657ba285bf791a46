package sparkplug

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Data types of metrics (Sparkplug 3.0.0, 6.4.16).
const (
	typeInt8 = iota + 1
	typeInt16
	typeInt32
	typeInt64
	typeUInt8
	typeUInt16
	typeUInt32
	typeUInt64
	typeFloat
	typeDouble
	typeBoolean
	typeString
	typeDateTime
	typeText
	typeUUID
)

// A payload is one message (6.4.2).
type payload struct {
	timestamp uint64 // Unix ms; 0: none
	seq       uint64
	hasSeq    bool
	metrics   []metric
}

// A metric is one value of a message (6.4.4).
type metric struct {
	name        string
	alias       uint64
	hasAlias    bool
	timestamp   uint64
	datatype    uint32
	transient   bool
	null        bool
	quality     int64 // of its properties; 0 with hasQuality false
	hasQuality  bool
	field       protowire.Number // of the value; 0: none
	bits        uint64           // of a number or a boolean
	text        string
	complicated bool // a data set, bytes, an extension
	template    *template
}

// A template is a metric that is made of others (6.4.17).
type template struct {
	definition bool
	metrics    []metric
}

// maxDepth is how deep templates may lie in each other.
const maxDepth = 4

// Fields of a metric's value.
const (
	fieldInt     = 10
	fieldLong    = 11
	fieldFloat   = 12
	fieldDouble  = 13
	fieldBoolean = 14
	fieldString  = 15

	fieldTemplate = 18
)

var errCut = errors.New("the message is cut off or is no protocol buffer")

// fields calls f for each field of a message.
func fields(b []byte, f func(n protowire.Number, t protowire.Type, varint uint64, bytes []byte) error) error {
	for len(b) > 0 {
		n, t, size := protowire.ConsumeTag(b)
		if size < 0 {
			return errCut
		}
		b = b[size:]
		var varint uint64
		var bytes []byte
		switch t {
		case protowire.VarintType:
			varint, size = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var v uint32
			v, size = protowire.ConsumeFixed32(b)
			varint = uint64(v)
		case protowire.Fixed64Type:
			varint, size = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			bytes, size = protowire.ConsumeBytes(b)
		default:
			size = protowire.ConsumeFieldValue(n, t, b)
		}
		if size < 0 {
			return errCut
		}
		b = b[size:]
		if err := f(n, t, varint, bytes); err != nil {
			return err
		}
	}
	return nil
}

// parse reads a message.
func parse(b []byte) (payload, error) {
	var p payload
	left := maxMetrics // of all templates
	err := fields(b, func(n protowire.Number, t protowire.Type, v uint64, sub []byte) error {
		switch {
		case n == 1 && t == protowire.VarintType:
			p.timestamp = v
		case n == 2 && t == protowire.BytesType:
			if len(p.metrics) == maxMetrics {
				return fmt.Errorf("more than %d metrics", maxMetrics)
			}
			m, err := parseMetric(sub, &left, maxDepth)
			if err != nil {
				return fmt.Errorf("metric %d: %w", len(p.metrics), err)
			}
			p.metrics = append(p.metrics, m)
		case n == 3 && t == protowire.VarintType:
			p.seq, p.hasSeq = v, true
		}
		return nil
	})
	return p, err
}

// parseMetric reads a metric. left is how many metrics templates may have yet,
// depth how deep they may lie.
func parseMetric(b []byte, left *int, depth int) (metric, error) {
	var m metric
	err := fields(b, func(n protowire.Number, t protowire.Type, v uint64, sub []byte) error {
		switch {
		case n == 1 && t == protowire.BytesType:
			if len(sub) > maxNameBytes {
				return fmt.Errorf("a name of %d bytes; at most %d", len(sub), maxNameBytes)
			}
			m.name = string(sub)
		case n == 2 && t == protowire.VarintType:
			m.alias, m.hasAlias = v, true
		case n == 3 && t == protowire.VarintType:
			m.timestamp = v
		case n == 4 && t == protowire.VarintType:
			m.datatype = uint32(v)
		case n == 6 && t == protowire.VarintType:
			m.transient = v != 0
		case n == 7 && t == protowire.VarintType:
			m.null = v != 0
		case n == 9 && t == protowire.BytesType:
			return m.properties(sub)
		case (n == fieldInt || n == fieldLong || n == fieldBoolean) && t == protowire.VarintType,
			n == fieldFloat && t == protowire.Fixed32Type, n == fieldDouble && t == protowire.Fixed64Type:
			m.field, m.bits = n, v
		case n == fieldString && t == protowire.BytesType:
			m.field, m.text = n, string(sub)
		case n == fieldTemplate && t == protowire.BytesType:
			if depth == 0 {
				return fmt.Errorf("templates lie more than %d deep in each other", maxDepth)
			}
			var err error
			m.field = n
			m.template, err = parseTemplate(sub, left, depth-1)
			return err
		case n >= 16 && n <= 19:
			m.complicated = true
		}
		return nil
	})
	return m, err
}

func parseTemplate(b []byte, left *int, depth int) (*template, error) {
	var out template
	err := fields(b, func(n protowire.Number, t protowire.Type, v uint64, sub []byte) error {
		switch {
		case n == 2 && t == protowire.BytesType:
			if *left--; *left < 0 {
				return fmt.Errorf("templates of more than %d metrics", maxMetrics)
			}
			m, err := parseMetric(sub, left, depth)
			if err != nil {
				return fmt.Errorf("metric %d of a template: %w", len(out.metrics), err)
			}
			out.metrics = append(out.metrics, m)
		case n == 5 && t == protowire.VarintType:
			out.definition = v != 0
		}
		return nil
	})
	return &out, err
}

// properties reads the property Quality (6.4.8).
func (m *metric) properties(b []byte) error {
	var keys []string
	at := 0
	return fields(b, func(n protowire.Number, t protowire.Type, _ uint64, sub []byte) error {
		switch {
		case t != protowire.BytesType || len(keys) > maxMetrics:
		case n == 1:
			keys = append(keys, string(sub))
		case n == 2:
			at++
			if at > len(keys) || keys[at-1] != "Quality" {
				return nil
			}
			return fields(sub, func(n protowire.Number, t protowire.Type, v uint64, _ []byte) error {
				if (n == 3 || n == 4) && t == protowire.VarintType {
					m.quality, m.hasQuality = int64(v), true
				}
				return nil
			})
		}
		return nil
	})
}

// number is the value of a metric that is one; ok is false for others.
func (m *metric) number(datatype uint32) (n float64, ok bool) {
	switch m.field {
	case fieldFloat:
		return float64(math.Float32frombits(uint32(m.bits))), true
	case fieldDouble:
		return math.Float64frombits(m.bits), true
	case fieldBoolean:
		if m.bits != 0 {
			n = 1
		}
		return n, true
	case fieldInt, fieldLong:
	default:
		return 0, false
	}
	// Signed integers are sent as the unsigned one of the same bits (6.4.16).
	switch datatype {
	case typeInt8:
		return float64(int8(m.bits)), true
	case typeInt16:
		return float64(int16(m.bits)), true
	case typeInt32:
		return float64(int32(m.bits)), true
	case typeInt64:
		return float64(int64(m.bits)), true
	case typeBoolean:
		if m.bits != 0 {
			n = 1
		}
		return n, true
	}
	return float64(m.bits), true
}

// rebirth is the command that asks a node for its birth (6.4.20).
func rebirth(unixMS uint64) []byte {
	var m []byte
	m = protowire.AppendTag(m, 1, protowire.BytesType)
	m = protowire.AppendString(m, "Node Control/Rebirth")
	m = protowire.AppendTag(m, 3, protowire.VarintType)
	m = protowire.AppendVarint(m, unixMS)
	m = protowire.AppendTag(m, 4, protowire.VarintType)
	m = protowire.AppendVarint(m, typeBoolean)
	m = protowire.AppendTag(m, fieldBoolean, protowire.VarintType)
	m = protowire.AppendVarint(m, 1)
	b := protowire.AppendTag(nil, 1, protowire.VarintType)
	b = protowire.AppendVarint(b, unixMS)
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	return protowire.AppendBytes(b, m)
}
