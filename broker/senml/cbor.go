package senml

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"

	"github.com/fxamacker/cbor/v2"
)

// labels are the fields of a record by their number in CBOR (RFC 8428, table 4).
func label(n int64) string {
	names := [...]string{"bver", "bn", "bt", "bu", "bv", "bs", "n", "u", "v", "vs", "vb", "s", "t", "ut", "vd"}
	switch {
	case n >= -6 && n <= -1:
		return names[-n-1]
	case n >= 0 && n <= 8:
		return names[n+6]
	}
	return fmt.Sprint(n) // not known, and need not be
}

// isCBOR reports whether a pack is in CBOR: an array, whose first byte no JSON
// text begins with.
func isCBOR(payload []byte) bool { return len(payload) > 0 && payload[0]>>5 == 4 }

// fromCBOR makes records in JSON of a pack in CBOR.
func fromCBOR(payload []byte) ([]json.RawMessage, error) {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: 4, MaxArrayElements: 1 << 17, MaxMapPairs: 64,
		IntDec: cbor.IntDecConvertSignedOrBigInt,
	}.DecMode()
	if err != nil {
		return nil, err // of options that do not change
	}
	var pack []map[any]any
	if err := mode.Unmarshal(payload, &pack); err != nil {
		return nil, err
	}
	records := make([]json.RawMessage, len(pack))
	for i, fields := range pack {
		record := make(map[string]any, len(fields))
		for key, value := range fields {
			name, ok := key.(string)
			if n, numbered := key.(int64); numbered {
				name, ok = label(n), true
			}
			if _, twice := record[name]; !ok || twice {
				return nil, fmt.Errorf("record %d: label %v is none, or there twice", i, key)
			}
			if record[name], err = plain(value); err != nil {
				return nil, fmt.Errorf("record %d: %s: %w", i, name, err)
			}
		}
		if records[i], err = json.Marshal(record); err != nil {
			return nil, fmt.Errorf("record %d: %w", i, err)
		}
	}
	return records, nil
}

// plain makes a value one that JSON has; decimal fractions are numbers (RFC 8428,
// section 6; RFC 8949, 3.4.4).
func plain(value any) (any, error) {
	switch v := value.(type) {
	case int64, string, bool, nil:
		return v, nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("%v is no number", v)
		}
		return v, nil
	case big.Int:
		f, _ := v.Float64()
		return f, nil
	case []byte:
		return "", nil // vd, which is not kept
	case cbor.Tag:
		parts, ok := v.Content.([]any)
		if v.Number != 4 || !ok || len(parts) != 2 {
			break
		}
		exponent, ok := parts[0].(int64)
		mantissa, err := plain(parts[1])
		if !ok || err != nil || exponent < -400 || exponent > 400 {
			break
		}
		switch m := mantissa.(type) {
		case int64:
			return json.Number(fmt.Sprintf("%de%d", m, exponent)), nil
		case float64:
			return json.Number(fmt.Sprintf("%.0fe%d", m, exponent)), nil
		}
	}
	return nil, fmt.Errorf("a value of the type %T is not one of SenML's", value)
}
