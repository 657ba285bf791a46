package broker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// written is a reading as tests write it.
func written(r telemetry.Reading) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s/%s", r.Device, r.Kind)
	if r.Site != "" {
		fmt.Fprintf(&b, " site=%s", r.Site)
	}
	for _, t := range r.Tags {
		fmt.Fprintf(&b, " #%s=%s", t.Key, t.Value)
	}
	for _, v := range r.Values {
		if v.Text != "" {
			fmt.Fprintf(&b, " %s=%q", v.Name, v.Text)
		} else {
			fmt.Fprintf(&b, " %s=%v", v.Name, v.Number)
		}
		if v.Quality != telemetry.Good {
			fmt.Fprintf(&b, "!%s", v.Quality)
		}
	}
	if r.Quality != telemetry.Good {
		fmt.Fprintf(&b, " !%s", r.Quality)
	}
	if !r.Time.IsZero() {
		fmt.Fprintf(&b, " @%s", r.Time.UTC().Format(time.RFC3339Nano))
	}
	return b.String()
}

// outcome is what a payload became, readings and then reasons.
func outcome(readings []telemetry.Reading, faults []*fault) []string {
	var out []string
	for _, r := range readings {
		out = append(out, written(r))
	}
	for _, f := range faults {
		out = append(out, f.reason)
	}
	return out
}

func TestDecodeJSON(t *testing.T) {
	long := strings.Repeat("x", telemetry.MaxTextBytes+1)
	for _, c := range []struct{ payload, want string }{
		{`{"level_m":3.62}`, "d/k level_m=3.62"},
		{" {\t\"level_m\" : 3.62 ,\r\n\"open\":true,\"shut\":false} ", "d/k level_m=3.62 open=1 shut=0"},
		{`{"a":-0.5e-3,"b":1E3,"c":0,"d":-12}`, "d/k a=-0.0005 b=1000 c=0 d=-12"},
		{`{"a":0.1,"b":123456789012345.6,"c":3.6200000000000001,"d":1e300}`, "d/k a=0.1 b=1.234567890123456e+14 c=3.62 d=1e+300"},
		{`{"state":"mở","a":1}`, `d/k state="mở" a=1`},
		{`{"state":"a\"b\u00e9\\","a":1}`, `d/k state="a\"bé\\" a=1`},
		{`{"a":null,"b":"","c":2}`, "d/k c=2"},
		{`{"a":1,"b":2,"a":3}`, "d/k a=3 b=2"},
		{`{"a":1,"b":2,"a":null}`, "d/k b=2"},
		{`{"a":1,"time":1761523200}`, "d/k a=1 @2025-10-27T00:00:00Z"},
		{`{"a":1,"time":1761523200.25}`, "d/k a=1 @2025-10-27T00:00:00.25Z"},
		{`{"a":1,"time":1761523200123}`, "d/k a=1 @2025-10-27T00:00:00.123Z"},
		{`{"a":1,"time":1761523200123456}`, "d/k a=1 @2025-10-27T00:00:00.123456Z"},
		{`{"a":1,"time":1761523200123456789}`, "d/k a=1 @2025-10-27T00:00:00.123456789Z"},
		{`{"a":1,"time":"1761523200"}`, "d/k a=1 @2025-10-27T00:00:00Z"},
		{`{"a":1,"time":"2025-10-27T07:00:00.5+07:00"}`, "d/k a=1 @2025-10-27T00:00:00.5Z"},
		{`{"a":1,"time":null}`, "d/k a=1"},
		{`{"a":1,"time":"yesterday"}`, "bad_time"},
		{`{"a":1,"time":true}`, "bad_time"},
		{`{"a":1,"time":{}}`, "bad_time"},
		{`{"a":1,"quality":"suspect"}`, "d/k a=1 !suspect"},
		{`{"a":1,"b":2,"quality":{"b":"bad","x":"bad"}}`, "d/k a=1 b=2!bad !bad"},
		{`{"quality":{"b":"calibrating"},"a":1,"b":2}`, "d/k a=1 b=2!calibrating !calibrating"},
		{`{"a":1,"quality":"fine"}`, "bad_quality"},
		{`{"a":1,"quality":1}`, "bad_quality"},
		{`{"a":1,"quality":{"a":2}}`, "bad_quality"},
		{`{"device":"d","a":1}`, "d/k a=1"},
		{`{"device":"e","a":1}`, "device_differs"},
		{`{"site":"e","a":1}`, "reserved_name"},
		{`{"delay_s":3,"a":1}`, "reserved_name"},
		{`{"a,b":1}`, "bad_name"},
		{`{"_a":1}`, "bad_name"},
		{`{"":1}`, "bad_name"},
		{`{"a":{"b":1}}`, "nested"},
		{`{"a":[1,2]}`, "nested"},
		{`{"a":[1,2}}`, "bad_json"},
		{`{"a":9007199254740992}`, "d/k a=9.007199254740992e+15"},
		{`{"a":9007199254740993}`, "integer_too_large"},
		{`{"a":-9007199254740993}`, "integer_too_large"},
		{`{"a":123456789012345678901234567890}`, "integer_too_large"},
		{`{"a":1e999}`, "not_finite"},
		{`{"a":NaN}`, "bad_json"},
		{`{"a":Infinity}`, "bad_json"},
		{`{"a":01}`, "bad_json"},
		{`{"a":1.}`, "bad_json"},
		{`{"a":+1}`, "bad_json"},
		{`{"a":.5}`, "bad_json"},
		{`{"a":1,}`, "bad_json"},
		{`{"a" 1}`, "bad_json"},
		{`{a:1}`, "bad_json"},
		{`{"a":1`, "bad_json"},
		{`{"a":1} x`, "bad_json"},
		{`{"a":"` + "\x01" + `"}`, "bad_json"},
		{`{"a":"\x"}`, "bad_json"},
		{`{"a":"` + "\xff" + `"}`, "bad_json"},
		{``, "bad_json"},
		{`{}`, "no_values"},
		{`[]`, "no_values"},
		{`{"time":1}`, "no_values"},
		{`3.62`, "not_object"},
		{`"x"`, "not_object"},
		{`[{"a":1},{"a":2,"time":1761523200}]`, "d/k a=1|d/k a=2 @2025-10-27T00:00:00Z"},
		{`[{"a":1},{"a":[]},3,{"a":2}]`, "d/k a=1|d/k a=2|nested|not_object"},
		{`[{"a":1},{"a":2]`, "bad_json"},
		{`[{"a":1} {"a":2}]`, "bad_json"},
		{`{"a":"` + long + `"}`, "text_too_long"},
		{many(telemetry.MaxValues + 1), "too_many_values"},
	} {
		r := newRoute("telemetry/d/k", nil)
		for range 2 { // the second time names are known
			got := strings.Join(outcome(r.decodeJSON([]byte(c.payload))), "|")
			if got != c.want {
				t.Errorf("%.80s\n got %s\nwant %s", c.payload, got, c.want)
			}
		}
	}
}

// many writes an object of n values.
func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"v%d":%d`, i, i)
	}
	return "{" + b.String()[1:] + "}"
}

func TestDecodeJSONKeepsAllValues(t *testing.T) {
	r := newRoute("telemetry/d/k", nil)
	readings, faults := r.decodeJSON([]byte(many(telemetry.MaxValues)))
	if len(faults) > 0 || len(readings) != 1 || len(readings[0].Values) != telemetry.MaxValues {
		t.Fatalf("faults %v", faults)
	}
	for i, v := range readings[0].Values {
		if v.Name != fmt.Sprintf("v%d", i) || v.Number != float64(i) {
			t.Fatalf("value %d is %v", i, v)
		}
	}
}

// FuzzDecodeJSON compares the scanner with encoding/json.
func FuzzDecodeJSON(f *testing.F) {
	for _, s := range []string{
		`{"level_m":3.62,"time":1761523200,"quality":"good"}`, `[{"a":1},{"a":"x","b":null}]`, `{"a":[1,{"b":2}],"c":true}`,
		`{"a":1e999,"a":12345678901234567890}`, `{"a":"\ud83d\ude00 \u0000","b":-0}`, ` [ ] `, `{"quality":{"a":"bad"},"a":1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		r := newRoute("telemetry/d/k", nil)
		r.names = []string{"a", "b"}
		got := outcome(r.decodeJSON(payload))
		want := reference(payload)
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Fatalf("%q\n got %q\nwant %q", payload, got, want)
		}
	})
}

// reference decodes with encoding/json, token by token.
func reference(payload []byte) []string {
	if !json.Valid(payload) || !bytes.Equal(bytes.ToValidUTF8(payload, nil), payload) {
		return []string{"bad_json"}
	}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	first, _ := d.Token()
	var readings, faults []string
	add := func(reading, reason string) {
		if reason != "" {
			faults = append(faults, reason)
		} else {
			readings = append(readings, reading)
		}
	}
	switch first {
	case json.Delim('{'):
		add(referenceObject(d))
	case json.Delim('['):
		if !d.More() {
			return []string{"no_values"}
		}
		for d.More() {
			var element json.RawMessage
			_ = d.Decode(&element)
			inner := json.NewDecoder(bytes.NewReader(element))
			inner.UseNumber()
			if at, _ := inner.Token(); at != json.Delim('{') {
				add("", "not_object")
				continue
			}
			add(referenceObject(inner))
		}
	default:
		return []string{"not_object"}
	}
	return append(readings, faults...)
}

func referenceObject(d *json.Decoder) (string, string) {
	reading := telemetry.Reading{Device: "d", Kind: "k"}
	reason := ""
	refuse := func(r string) {
		if reason == "" {
			reason = r
		}
	}
	var order []string
	values := map[string]*telemetry.Value{}
	type valueQuality struct {
		name string
		q    telemetry.Quality
	}
	var qualities []valueQuality
	for d.More() {
		key, err := d.Token()
		if err != nil && err != io.EOF {
			return "", "bad_json"
		}
		name := key.(string)
		var raw json.RawMessage
		_ = d.Decode(&raw)
		var v any
		inner := json.NewDecoder(bytes.NewReader(raw))
		inner.UseNumber()
		_ = inner.Decode(&v)
		switch name {
		case "time":
			switch v := v.(type) {
			case nil:
				reading.Time = time.Time{}
			case json.Number, string:
				at, ok := telemetry.ParseTime(fmt.Sprint(v))
				if !ok {
					refuse("bad_time")
				}
				reading.Time = at
			default:
				refuse("bad_time")
			}
			continue
		case "quality":
			if _, ok := v.(map[string]any); !ok {
				q, ok := referenceQuality(v)
				if !ok {
					refuse("bad_quality")
				}
				reading.Quality = q
				continue
			}
			inner := json.NewDecoder(bytes.NewReader(raw))
			_, _ = inner.Token()
			for inner.More() {
				key, _ := inner.Token()
				var v any
				_ = inner.Decode(&v)
				q, ok := referenceQuality(v)
				if !ok {
					refuse("bad_quality")
				}
				qualities = append(qualities, valueQuality{key.(string), q})
			}
			continue
		case "device":
			if v != "d" {
				refuse("device_differs")
			}
			continue
		}
		value := &telemetry.Value{Name: name}
		switch v := v.(type) {
		case nil:
			value = nil
		case string:
			if len(v) > telemetry.MaxTextBytes {
				refuse("text_too_long")
				continue
			}
			if value.Text = v; v == "" {
				value = nil
			}
		case bool:
			if v {
				value.Number = 1
			}
		case json.Number:
			n, err := v.Float64()
			if !strings.ContainsAny(string(v), ".eE") {
				var whole int64
				if _, e := fmt.Sscan(string(v), &whole); e != nil || whole > 1<<53 || whole < -1<<53 {
					refuse("integer_too_large")
					continue
				}
			}
			if err != nil || math.IsInf(n, 0) {
				refuse("not_finite")
				continue
			}
			value.Number = n
		default:
			refuse("nested")
			continue
		}
		if value != nil && values[name] == nil {
			switch {
			case telemetry.Reserved(name):
				refuse("reserved_name")
				continue
			case !telemetry.ValidName(name):
				refuse("bad_name")
				continue
			}
			// An absent value loses its place, too.
			kept := order[:0]
			for _, o := range order {
				if o != name {
					kept = append(kept, o)
				}
			}
			order = append(kept, name)
		}
		values[name] = value
	}
	for _, name := range order {
		if v := values[name]; v != nil {
			reading.Values = append(reading.Values, *v)
		}
	}
	if len(reading.Values) == 0 {
		refuse("no_values")
	}
	for _, q := range qualities {
		for i := range reading.Values {
			if reading.Values[i].Name == q.name {
				reading.Values[i].Quality = q.q
				reading.Quality = max(reading.Quality, q.q)
			}
		}
	}
	return written(reading), reason
}

func referenceQuality(v any) (telemetry.Quality, bool) {
	if v == nil {
		return telemetry.Good, true
	}
	word, ok := v.(string)
	q, err := telemetry.ParseQuality(word)
	return q, ok && err == nil
}

func BenchmarkDecodeJSON(b *testing.B) {
	for _, payload := range []string{
		`{"level_m":3.62}`,
		`{"time":1761523200123,"level_m":3.62,"rain_1h_mm":12.4,"flow_m3s":431.5,"battery_v":12.6,"state":"ok"}`,
	} {
		b.Run(fmt.Sprintf("%dB", len(payload)), func(b *testing.B) {
			r := newRoute("telemetry/kim-long/river", nil)
			b.ReportAllocs()
			for b.Loop() {
				if readings, _ := r.decodeJSON([]byte(payload)); len(readings) != 1 {
					b.Fatal("no reading")
				}
			}
		})
	}
}
