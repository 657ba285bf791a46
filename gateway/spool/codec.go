package spool

import (
	"bytes"
	"encoding/json"
	"fmt"

	"haidang/gateway/telemetry"
)

// A codec turns the records of a log into lines and back.
type codec[T any] struct {
	// encode appends the record as one line, line break included.
	encode func(dst []byte, record *T) ([]byte, error)
	// decoder returns a function that appends the records of lines to dst; it
	// is used by one goroutine.
	decoder func() func(dst []T, lines []byte) ([]T, error)
	device  func(record *T) string
	control func(record *T) bool // may be nil

	// Who delivered a record is not in its line; both may be nil.
	source  func(record *T) string
	sources func(records []T, header string) error
}

func readingCodec() codec[telemetry.Reading] {
	return codec[telemetry.Reading]{
		encode: AppendReading,
		decoder: func() func([]telemetry.Reading, []byte) ([]telemetry.Reading, error) {
			return NewLineDecoder().Decode
		},
		device:  func(r *telemetry.Reading) string { return r.Device },
		control: (*telemetry.Reading).Control,
		source:  func(r *telemetry.Reading) string { return r.Source },
		sources: nameSources,
	}
}

func transitionCodec() codec[telemetry.Transition] {
	return jsonCodec(func(t *telemetry.Transition) string { return t.Device })
}

func jsonCodec[T any](device func(*T) string) codec[T] {
	return codec[T]{
		encode: func(dst []byte, record *T) ([]byte, error) {
			line, err := json.Marshal(record)
			if err != nil {
				return dst, err
			}
			return append(append(dst, line...), '\n'), nil
		},
		decoder: func() func([]T, []byte) ([]T, error) { return decodeJSON[T] },
		device:  device,
	}
}

func decodeJSON[T any](dst []T, lines []byte) ([]T, error) {
	out := dst
	for line := range bytes.Lines(lines) {
		var record T
		if err := json.Unmarshal(line, &record); err != nil {
			return dst, fmt.Errorf("line %d: %w", len(out)-len(dst)+1, err)
		}
		out = append(out, record)
	}
	return out, nil
}
