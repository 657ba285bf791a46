package broker

import (
	"strings"
	"testing"

	"haidang/gateway/telemetry"
)

func TestDecodeLines(t *testing.T) {
	for _, c := range []struct{ payload, want string }{
		{"river level_m=3.62,n=4i,u=5u,ok=true 1761523200000000000", "d/river level_m=3.62 n=4 u=5 ok=1 @2025-10-27T00:00:00Z"},
		{"river level_m=3.62", "d/river level_m=3.62"},
		{"river level_m=3.62 1761523200", "d/river level_m=3.62 @2025-10-27T00:00:00Z"},
		{"# comment\n\nriver a=1\n\nrain b=2\n", "d/river a=1|d/rain b=2"},
		{`river state_text="mở cửa",note="x, y"`, `d/river state="mở cửa" note="x, y"`},
		{`river a=1,state=""`, "d/river a=1"},
		{`river,device=d,site=huế a=1,quality="suspect",a_quality="suspect",delay_s=3`, "d/river site=huế a=1!suspect !suspect"},
		{`river a=1,air_quality="good"`, `d/river a=1 air_quality="good"`},
		{`river a=1,quality="fine"`, "bad_quality"},
		{"river,device=e a=1", "device_differs"},
		{"river,b=2,a=1 v=1", "d/river #a=1 #b=2 v=1"},
		{"river,a=1,a=2 v=1", "bad_line"},
		{"river,quality=x v=1", "reserved_name"},
		{"river,a=1,b=1,c=1,d=1,e=1,f=1,g=1,h=1 v=1", "d/river #a=1 #b=1 #c=1 #d=1 #e=1 #f=1 #g=1 #h=1 v=1"},
		{"river,a=1,b=1,c=1,d=1,e=1,f=1,g=1,h=1,i=1 v=1", "too_many_tags"},
		{"river a=9007199254740993i", "integer_too_large"},
		{"river a=9007199254740993u", "integer_too_large"},
		{"river site=1", "reserved_name"},
		{`river a\ b=1`, "bad_name"},
		{`ri\,ver a=1`, "bad_name"},
		{"warning a=1", "bad_name"},
		{"river delay_s=1", "no_values"},
		{"river a=NaN", "bad_line"},
		{"river", "bad_line"},
		{"river a=1\nriver a=\nriver a=3", "d/river a=1|d/river a=3|bad_line"},
		{"", "no_values"},
	} {
		r := newRoute("influx/d", nil)
		for range 2 {
			got := strings.Join(outcome(r.decodeLines([]byte(c.payload))), "|")
			if got != c.want {
				t.Errorf("%q\n got %s\nwant %s", c.payload, got, c.want)
			}
		}
	}
}

func TestDecodeLinesKeepsTheBadLine(t *testing.T) {
	r := newRoute("influx/d", nil)
	_, faults := r.decodeLines([]byte("river a=1\nriver a=\nriver a=3"))
	if len(faults) != 1 || string(faults[0].bytes) != "river a=" || !strings.Contains(faults[0].detail, "line 2") {
		t.Fatalf("faults %+v", faults)
	}
}

// FuzzDecodeLines checks what every reading must be, whatever comes in.
func FuzzDecodeLines(f *testing.F) {
	for _, s := range []string{
		"river,device=d,site=s,x=1 level_m=3.62,n=4i,ok=t,w=\"a b\",w_quality=\"bad\" 1761523200000000000", "a b=1\nc d=", "river a=\"\n\"\nb c=2",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		readings, faults := newRoute("influx/d", nil).decodeLines(payload)
		if len(readings)+len(faults) == 0 {
			t.Fatal("neither reading nor fault")
		}
		for _, r := range readings {
			checkReading(t, r)
		}
	})
}

func checkReading(t *testing.T, r telemetry.Reading) {
	t.Helper()
	if r.Device != "d" || !telemetry.ValidName(r.Kind) || len(r.Values) == 0 || len(r.Values) > telemetry.MaxValues || len(r.Tags) > telemetry.MaxTags {
		t.Fatalf("reading %+v", r)
	}
	seen := map[string]bool{}
	for _, v := range r.Values {
		if !telemetry.ValidName(v.Name) || telemetry.Reserved(v.Name) || seen[v.Name] || !telemetry.Finite(v.Number) {
			t.Fatalf("value %+v of %+v", v, r)
		}
		seen[v.Name] = true
	}
}

func TestNewRoute(t *testing.T) {
	mappings := []Mapping{
		{Topic: "site/+/+/data", Device: "2", Kind: "3"},
		{Topic: "plant/#", Device: "pump-1", Kind: "flow"},
		{Topic: "tele/+/SENSOR", Device: "2", Format: "influx"},
	}
	for _, c := range []struct{ topic, want string }{
		{"telemetry/kim-long/river", "telemetry json kim-long river"},
		{"telemetry/Kim Long/river", "telemetry json  bad_name"},
		{"telemetry/kim-long/ri,ver", "telemetry json kim-long bad_name"},
		{"telemetry/kim-long/warning", "telemetry json kim-long bad_name"},
		{"telemetry/kim-long", "telemetry json  bad_topic"},
		{"telemetry", "telemetry json  bad_topic"},
		{"telemetry/a/b/c", "telemetry json  bad_topic"},
		{"telemetry//b", "telemetry json  bad_name"},
		{"influx/kim-long", "influx influx kim-long "},
		{"influx/a/b", "influx influx  bad_topic"},
		{"influx", "influx influx  bad_topic"},
		{"senml/kim-long", "senml senml kim-long "},
		{"senml/kim-long/a", "senml senml  bad_topic"},
		{"spBv1.0/hue/NDATA/kim-long", "sparkplug sparkplug  "},
		{"spBv1.0/hue/DDATA/kim-long/pump 1", "sparkplug sparkplug  "},
		{"spBv1.0/hue/NCMD/kim-long", "other   "},
		{"spBv1.0/STATE/scada", "other   "},
		{"spBv1.0/hue/NDATA", "sparkplug sparkplug  bad_topic"},
		{"telemetryx/a/b", "other   "},
		{"/telemetry/a/b", "other   "},
		{"warnings/a/b", "other   own"},
		{"site/hue/rain/data", "mapped json hue rain"},
		{"site/hue/rain/data/x", "other   "},
		{"site/hue/rain", "other   "},
		{"plant", "mapped json pump-1 flow"},
		{"plant/a/b", "mapped json pump-1 flow"},
		{"tele/sonoff/SENSOR", "mapped influx sonoff "},
		{"tele/son off/SENSOR", "mapped influx  bad_name"},
	} {
		r := newRoute(c.topic, mappings)
		last := r.kind
		if r.fault != nil {
			last = r.fault.reason
		}
		if r.own {
			last = "own"
		}
		if got := strings.Join([]string{r.family, r.format, r.device, last}, " "); got != c.want {
			t.Errorf("%s: got %q, want %q", c.topic, got, c.want)
		}
	}
}
