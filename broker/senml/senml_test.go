package senml

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

var now = time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC)

func outcome(device, payload string) string {
	readings, letters := Decode(device, []byte(payload), now)
	var out []string
	for _, r := range readings {
		s := r.Kind
		for _, v := range r.Values {
			if v.Text != "" {
				s += fmt.Sprintf(" %s=%q", v.Name, v.Text)
			} else {
				s += fmt.Sprintf(" %s=%.10g", v.Name, v.Number)
			}
		}
		if !r.Time.IsZero() {
			s += " @" + r.Time.Format(time.RFC3339Nano)
		}
		out = append(out, s)
	}
	for _, l := range letters {
		out = append(out, l.Reason)
	}
	return strings.Join(out, "|")
}

func TestDecode(t *testing.T) {
	for _, c := range []struct{ payload, want string }{
		// The examples of RFC 8428, 5.1.1 to 5.1.8.
		{`[{"n":"urn:dev:ow:10e2073a01080063","u":"Cel","v":23.1}]`, "senml 10e2073a01080063_c=23.1"},
		{`[{"bn":"urn:dev:ow:10e2073a01080063:","n":"voltage","u":"V","v":120.1},{"n":"current","u":"A","v":1.2}]`, "senml current_a=1.2 voltage_v=120.1"},
		{`[{"bn":"urn:dev:ow:10e2073a0108006:","bt":1.276020076001e+09,"bu":"A","bver":5,"n":"voltage","u":"V","v":120.1},{"n":"current","t":-5,"v":1.2},{"n":"current","t":-4,"v":1.3},{"n":"current","v":1.7}]`,
			"senml current_a=1.7 voltage_v=120.1 @2010-06-08T18:01:16.001Z|senml current_a=1.2 @2010-06-08T18:01:11.001Z|senml current_a=1.3 @2010-06-08T18:01:12.001Z"},
		{`[{"bn":"urn:dev:ow:10e2073a01080063","bt":1.320067464e+09,"bu":"%RH","v":20},{"u":"lon","v":24.30621},{"u":"lat","v":60.07965},{"t":60,"v":20.3}]`,
			"senml 10e2073a01080063=60.07965 10e2073a01080063_pct=20 @2011-10-31T13:24:24Z|senml 10e2073a01080063_pct=20.3 @2011-10-31T13:25:24Z"},
		{`[{"bn":"urn:dev:ow:10e2073a01080063:","n":"temp","u":"Cel","v":23.1},{"n":"label","vs":"Machine Room"},{"n":"open","vb":false},{"n":"nfc-reader","vd":"aGkgCg"}]`,
			`senml label="Machine Room" open=0 temp_c=23.1|binary`},
		{`[{"bn":"2001:db8::2/","bt":1.320078429e+09,"n":"temperature","u":"Cel","v":27.2},{"n":"humidity","u":"%RH","v":80}]`, "senml humidity_pct=80 temperature_c=27.2 @2011-10-31T16:27:09Z"},
		// Names.
		{`[{"bn":"kim-long/","n":"river/level","u":"m","v":3.62}]`, "river level_m=3.62"},
		{`[{"bn":"kim-long:","n":"weather.temperature","u":"K","v":300.15}]`, "weather temperature_c=27"},
		{`[{"n":"river/level_m","u":"mm","v":3620}]`, "river level_m=3.62"},
		{`[{"n":"a/b/c","v":1}]`, "a.b c=1"},
		{`[{"bn":"urn:dev:mac:0024befffe804ff1/temp","v":1}]`, "senml temp=1"},
		{`[{"n":"a b","v":1}]`, "bad_name"},
		{`[{"n":"warning/x","v":1}]`, "bad_name"},
		{`[{"n":"time","v":1}]`, "bad_name"},
		{`[{"v":1}]`, "bad_name"},
		// Units.
		{`[{"n":"p","u":"Pa","v":101325},{"n":"q_hpa","u":"kPa","v":100}]`, "senml p_hpa=1013.25 q_hpa=1000"},
		{`[{"n":"level_m","u":"Cel","v":1},{"n":"x","v":1}]`, "senml x=1|unit_differs"},
		{`[{"n":"ec","u":"S/m","v":0.5},{"n":"d","u":"rad","v":3.141592653589793},{"n":"n","u":"/","v":0.25}]`, "senml d_deg=180 ec_mscm=5 n_pct=25"},
		{`[{"n":"ph","u":"pH","v":7.1}]`, "senml ph=7.1"},
		{`[{"n":"rain_1h","u":"mm","v":12}]`, "senml rain_1h_mm=12"},
		// Base values, sums, times.
		{`[{"bv":10,"bs":100,"n":"a","v":1},{"n":"b","s":5},{"n":"c","v":1,"s":1,"u":"W"}]`, "senml a=11 b_sum=105 c_w=11 c_w_sum=101"},
		{`[{"n":"a","v":1,"t":-60}]`, "senml a=1 @2026-11-22T00:59:00Z"},
		{`[{"n":"a","v":1,"t":268435456}]`, "senml a=1 @1978-07-04T21:24:16Z"},
		{`[{"n":"a","v":1},{"n":"a","v":2}]`, "senml a=2"},
		{`[{"bn":"x:","bt":1761523200}]`, "no_values"},
		// Faults.
		{`[{"n":"a","v":1},{"n":"b","v":1,"new_":1}]`, "bad_senml"},
		{`[{"n":"a","v":1,"new":1}]`, "senml a=1"},
		{`[{"bver":11,"n":"a","v":1}]`, "bad_senml"},
		{`[{"n":"a"}]`, "bad_senml"},
		{`[{"n":"a","v":1,"vs":"x"},{"n":"b","v":2}]`, "senml b=2|bad_senml"},
		{`[{"n":"a","v":"1"}]`, "bad_senml"},
		{`[{"n":"a","v":null}]`, "bad_senml"},
		{`[{"n":"a","v":1e999}]`, "bad_senml"},
		{`[{"bv":1e308,"n":"a","v":1e308}]`, "not_finite"},
		{`[{"n":"a","vb":1}]`, "bad_senml"},
		{`[3]`, "bad_senml"},
		{`[null]`, "bad_senml"},
		{`[]`, "no_values"},
		{`{"n":"a","v":1}`, "bad_json"},
		{`[{"n":"a","v":1}`, "bad_json"},
	} {
		if got := outcome("kim-long", c.payload); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.payload, got, c.want)
		}
	}
}

// TestUnits converts each unit to its ending and back.
func TestUnits(t *testing.T) {
	n := 0
	for _, u := range strings.Fields("m mm cm km Cel K Pa hPa kPa %RH %EL % / m/s km/h m3/s l/s mm/h V mV A mA W kW J kWh lx W/m2 S/m mg/l ug/m3 deg rad dBm s") {
		given, ok := unitOf(u)
		to, there := endingOf("x_" + given.ending)
		if !ok || !there || to.dimension != given.dimension {
			t.Errorf("%s: %v, ending %v", u, given, to)
		}
		v, why := inUnit("x", u, 2)
		if why != nil || v.Name != "x_"+given.ending || math.Abs(v.Number*to.factor-2*given.factor-given.offset) > 1e-9 {
			t.Errorf("%s: %v %v", u, v, why)
		}
		n++
	}
	if n < 30 {
		t.Fatal(n)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`[{"bn":"urn:dev:ow:10e2073a01080063:","bt":1.276020076e+09,"n":"voltage","u":"V","v":120.1},{"n":"current","t":-5,"s":1.2,"vs":"x"}]`,
		`[{"n":"kim-long/river/level_m","u":"mm","v":3620},{"vb":true},{"vd":"x","x_":1}]`, `[{}]`, `[{"bv":1e308,"v":1e308,"n":"a","t":-1e300}]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		readings, letters := Decode("kim-long", payload, now)
		if len(readings)+len(letters) == 0 && json.Valid(payload) {
			var pack []struct {
				Word *string `json:"vs"`
			}
			if json.Unmarshal(payload, &pack) == nil {
				for _, r := range pack {
					if r.Word != nil && *r.Word == "" {
						return // an empty word is no value
					}
				}
			}
			t.Fatalf("%q vanishes", payload)
		}
		for _, r := range readings {
			if r.Device != "kim-long" || !telemetry.ValidName(r.Kind) || len(r.Values) == 0 {
				t.Fatalf("%+v", r)
			}
			for _, v := range r.Values {
				if !telemetry.ValidName(v.Name) || telemetry.Reserved(v.Name) || !telemetry.Finite(v.Number) {
					t.Fatalf("%+v", v)
				}
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	payload := []byte(`[{"bn":"kim-long/river/","bt":1761523200,"n":"level","u":"m","v":3.62},{"n":"battery","u":"V","v":12.6},{"n":"flow","u":"m3/s","v":120}]`)
	b.ReportAllocs()
	for b.Loop() {
		if readings, _ := Decode("kim-long", payload, now); len(readings) != 1 {
			b.Fatal(readings)
		}
	}
}
