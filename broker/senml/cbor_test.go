package senml

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"haidang/gateway/telemetry"
)

// inCBOR makes a pack in CBOR of one in JSON, with the numbers of RFC 8428, table 4.
func inCBOR(t *testing.T, pack string) []byte {
	t.Helper()
	numbers := map[string]int64{}
	for n := int64(-6); n <= 8; n++ {
		numbers[label(n)] = n
	}
	var records []map[string]any
	if err := json.Unmarshal([]byte(pack), &records); err != nil {
		t.Fatal(err)
	}
	out := make([]map[any]any, len(records))
	for i, record := range records {
		out[i] = map[any]any{}
		for name, value := range record {
			if n, ok := numbers[name]; ok {
				out[i][n] = value
			} else {
				out[i][name] = value
			}
		}
	}
	text, err := cbor.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestCBOR reads packs in CBOR as the same in JSON.
func TestCBOR(t *testing.T) {
	for _, pack := range []string{
		`[{"bn":"kim-long/","bt":1763773200,"n":"river/level","u":"m","v":3.62},{"n":"river/flow","u":"l/s","v":120500},{"n":"label","vs":"Máy","vb":true},{"n":"open","vb":false},{"n":"x","s":5,"t":-60}]`,
		`[{"bv":10,"bs":100,"bu":"W","bver":5,"n":"a","v":1},{"n":"b","s":5}]`,
		`[{"n":"a","v":1},{"n":"b","v":1,"new_":1}]`,
		`[{"n":"a","v":1,"new":1}]`, `[{"bver":11,"n":"a","v":1}]`, `[{"n":"a"}]`, `[{"n":"a","v":"1"}]`, `[{"n":"a","v":null}]`, `[]`,
	} {
		if got, want := outcome("kim-long", string(inCBOR(t, pack))), outcome("kim-long", pack); got != want {
			t.Errorf("%s\n in CBOR %s\n in JSON %s", pack, got, want)
		}
	}
	for _, c := range []struct{ pack, want string }{
		// The example of RFC 8428, section 6.
		{`87 a7 21 78 1b 75 72 6e 3a 64 65 76 3a 6f 77 3a 31 30 65 32 30 37 33 61 30 31 30 38 30 30 36 3a 22 fb 41 d3 03 a1 5b 00 10 62
		23 61 41 20 05 00 67 76 6f 6c 74 61 67 65 01 61 56 02 fb 40 5e 06 66 66 66 66 66 a3 00 67 63 75 72 72 65 6e 74 06 24 02 fb 3f f3 33 33 33 33 33 33
		a3 00 67 63 75 72 72 65 6e 74 06 23 02 fb 3f f4 cc cc cc cc cc cd a3 00 67 63 75 72 72 65 6e 74 06 22 02 fb 3f f8 00 00 00 00 00 00
		a3 00 67 63 75 72 72 65 6e 74 06 21 02 f9 3e 00 a3 00 67 63 75 72 72 65 6e 74 06 20 02 fb 3f f9 99 99 99 99 99 9a
		a3 00 67 63 75 72 72 65 6e 74 06 00 02 fb 3f fb 33 33 33 33 33 33`,
			"senml current_a=1.7 voltage_v=120.1 @2010-06-08T18:01:16.001Z|senml current_a=1.2 @2010-06-08T18:01:11.001Z|senml current_a=1.3 @2010-06-08T18:01:12.001Z|" +
				"senml current_a=1.5 @2010-06-08T18:01:13.001Z|senml current_a=1.5 @2010-06-08T18:01:14.001Z|senml current_a=1.6 @2010-06-08T18:01:15.001Z"},
		{"9f a2 00 61 61 02 01 ff", "senml a=1"},                  // of no stated length
		{"81 a2 00 61 61 02 c4 82 21 19 6a b3", "senml a=273.15"}, // a decimal fraction
		{"81 a2 00 61 61 02 1b ff ff ff ff ff ff ff ff", "senml a=1.844674407e+19"},
		{"81 a2 00 61 61 08 43 01 02 03", "binary"},
		{"81 a2 00 61 61 02 f9 7e 00", "bad_cbor"},       // NaN
		{"81 a3 00 61 61 00 61 62 02 01", "bad_cbor"},    // a label twice
		{"81 a3 00 61 61 61 6e 61 62 02 01", "bad_cbor"}, // and once as a word
		{"81 a2 00 61 61 02 81 01", "bad_cbor"},          // an array
		{"81 a2 00 61 61", "bad_cbor"},                   // cut off
		{"81 01", "bad_cbor"},
		{"80", "no_values"},
	} {
		raw, err := hex.DecodeString(strings.Join(strings.Fields(c.pack), ""))
		if err != nil {
			t.Fatal(err)
		}
		if got := outcome("kim-long", string(raw)); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.pack, got, c.want)
		}
	}
}

// FuzzCBOR reads anything that begins as a pack in CBOR.
func FuzzCBOR(f *testing.F) {
	for _, text := range []string{"81a20061610201", "9fa20061610201ff", "81a200616102c48221196ab3", "81a2006161024301", "82a3216178221b00000000691ffd90026178a10201"} {
		raw, err := hex.DecodeString(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if !isCBOR(payload) {
			payload = append([]byte{0x9f}, payload...)
		}
		readings, _ := Decode("kim-long", payload, now)
		for _, r := range readings {
			for _, v := range r.Values {
				if !telemetry.ValidName(v.Name) || math.IsNaN(v.Number) {
					t.Fatalf("%+v", v)
				}
			}
		}
	})
}
