package spool

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

var noon = time.Date(2025, 10, 27, 12, 0, 0, 0, time.UTC)

func river(device string, level float64) telemetry.Reading {
	return telemetry.Reading{
		Device: device, Kind: "river", Site: "kim-long", Time: noon,
		Values: []telemetry.Value{{Name: "level_m", Number: level}},
	}
}

func TestAppendReading(t *testing.T) {
	full := telemetry.Reading{
		Device: "trạm-1", Kind: "weather", Site: "huế", Time: noon.Add(5), Delay: 90*time.Second + 1, Quality: telemetry.Bad,
		Values: []telemetry.Value{
			{Name: "temp_c", Number: -12.345, Quality: telemetry.Suspect},
			{Name: "state", Text: "say \"no\",\nback\\slash", Quality: telemetry.Bad},
			{Name: "big", Number: 1.5e300},
		},
		Tags: []telemetry.Tag{{Key: "channel", Value: "a b,c=d"}, {Key: "floor", Value: "2"}, {Key: "zone", Value: "x"}},
	}
	for _, c := range []struct {
		r    telemetry.Reading
		want string
	}{
		{river("kim-long", 3.62), `river,device=kim-long,site=kim-long level_m=3.62,quality="good" 1761566400000000000`},
		{full, `weather,channel=a\ b\,c\=d,device=trạm-1,floor=2,site=huế,zone=x temp_c=-12.345,temp_c_quality="suspect",` +
			`state_text="say \"no\", back\\slash",state_quality="bad",big=1.5e+300,quality="bad",delay_s=90.000000001 1761566400000000005`},
	} {
		got, err := AppendReading([]byte("x"), &c.r)
		if err != nil || string(got) != "x"+c.want+"\n" {
			t.Errorf("got  %s %v\nwant x%s", got, err, c.want)
		}
	}
}

func TestAppendReadingRefuses(t *testing.T) {
	for want, spoil := range map[string]func(r *telemetry.Reading){
		"no values":         func(r *telemetry.Reading) { r.Values = nil },
		"device and a kind": func(r *telemetry.Reading) { r.Device = "" },
		"years":             func(r *telemetry.Reading) { r.Time = time.Time{} },
		"years 1685":        func(r *telemetry.Reading) { r.Time = time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC) },
		"finite":            func(r *telemetry.Reading) { r.Values[0].Number = math.NaN() },
		"control character": func(r *telemetry.Reading) { r.Kind = "a\nb" },
		"UTF-8":             func(r *telemetry.Reading) { r.Device = "\xff" },
		"backslash":         func(r *telemetry.Reading) { r.Tags = []telemetry.Tag{{Key: "path", Value: `C:\`}} },
		"reserved":          func(r *telemetry.Reading) { r.Tags = []telemetry.Tag{{Key: "site", Value: "x"}} },
		"not sorted":        func(r *telemetry.Reading) { r.Tags = []telemetry.Tag{{Key: "b", Value: "x"}, {Key: "a", Value: "x"}} },
		"empty":             func(r *telemetry.Reading) { r.Values[0].Name = "" },
	} {
		r := river("d", 1)
		spoil(&r)
		got, err := AppendReading([]byte("before"), &r)
		if err == nil || !strings.Contains(err.Error(), want) || string(got) != "before" {
			t.Errorf("want an error with %q, got %v and %q", want, err, got)
		}
	}
}

// randomReading makes a reading that line protocol can carry without loss.
func randomReading(rnd *rand.Rand) telemetry.Reading {
	word := func(n int) string {
		letters := []rune(`abcXYZ019 ,="'ưữđ水#{}_-:.\` + "\t")
		var b strings.Builder
		for range 1 + rnd.IntN(n) {
			b.WriteRune(letters[rnd.IntN(len(letters))])
		}
		return b.String()
	}
	name := func() string {
		return strings.NewReplacer("\\", "/", "\t", "t").Replace("n" + word(8))
	}
	number := func() float64 {
		switch rnd.IntN(4) {
		case 0:
			return float64(rnd.IntN(2_000_000)-1_000_000) / 1000
		case 1:
			return rnd.NormFloat64() * math.Pow(10, float64(rnd.IntN(600)-300))
		case 2:
			return float64(rnd.Int64())
		}
		return rnd.Float64()
	}
	r := telemetry.Reading{
		Device: name(), Kind: strings.ReplaceAll(name(), "=", "-"), Time: time.Unix(0, rnd.Int64N(4e18)-1e18).UTC(),
		Quality: telemetry.Quality(rnd.IntN(5)),
	}
	if rnd.IntN(3) > 0 {
		r.Site = name()
	}
	if rnd.IntN(3) == 0 {
		r.Delay = time.Duration(rnd.Int64N(math.MaxInt64))
	}
	for i := range 1 + rnd.IntN(6) {
		v := telemetry.Value{Name: fmt.Sprintf("v%d%s", i, name()), Quality: telemetry.Quality(rnd.IntN(5))}
		if rnd.IntN(4) == 0 {
			v.Text = word(200)
		} else {
			v.Number = number()
		}
		r.Values = append(r.Values, v)
	}
	for i := range rnd.IntN(4) {
		r.Tags = append(r.Tags, telemetry.Tag{Key: fmt.Sprintf("%c%d", "cegtz"[i], i), Value: name()})
	}
	return r
}

func TestLinesComeBack(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	decoder := NewLineDecoder()
	for range 300 {
		var want []telemetry.Reading
		var lines []byte
		for range 1 + rnd.IntN(40) {
			r := randomReading(rnd)
			var err error
			if lines, err = AppendReading(lines, &r); err != nil {
				t.Fatal(err)
			}
			want = append(want, r)
		}
		got, err := decoder.Decode(nil, lines)
		if err != nil {
			t.Fatalf("%v in\n%s", err, lines)
		}
		if len(got) != len(want) {
			t.Fatalf("%d readings came back of %d", len(got), len(want))
		}
		for i := range want {
			if !reflect.DeepEqual(got[i], want[i]) {
				t.Fatalf("got  %+v\nwant %+v", got[i], want[i])
			}
		}
	}
}

func TestDecodeForeignLines(t *testing.T) {
	got, err := NewLineDecoder().Decode(nil, []byte("m,device=d a=3i,b=true,c=\"w\",d=4u,e=1e3\n# remark\n\nm,device=d a=1 5"))
	if err != nil {
		t.Fatal(err)
	}
	want := []telemetry.Reading{
		{Kind: "m", Device: "d", Values: []telemetry.Value{{Name: "a", Number: 3}, {Name: "b", Number: 1}, {Name: "c", Text: "w"}, {Name: "d", Number: 4}, {Name: "e", Number: 1000}}},
		{Kind: "m", Device: "d", Time: time.Unix(0, 5).UTC(), Values: []telemetry.Value{{Name: "a", Number: 1}}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	before := []telemetry.Reading{river("d", 1)}
	after, err := NewLineDecoder().Decode(before, []byte("m a=1 5\nm a=x 5\n"))
	if err == nil || !strings.HasPrefix(err.Error(), "line 2: ") || len(after) != 1 {
		t.Errorf("want an error at line 2 and the readings as they were, got %v and %d readings", err, len(after))
	}
}

func TestDecoderForgets(t *testing.T) {
	d := NewLineDecoder()
	for i := range 3 * maxWords {
		if _, err := d.Decode(nil, fmt.Appendf(nil, "m,device=d%d a=1 5", i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.words) > maxWords {
		t.Errorf("the decoder keeps %d words, the bound is %d", len(d.words), maxWords)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`river,device=kim-long,site=kim-long level_m=3.62,level_m_quality="bad",quality="good",delay_s=2.5 1761566400000000000`))
	f.Add([]byte("m,a=b\\ c x=\"y\\\"\",z=1i\n\x00"))
	f.Add([]byte(`m a="b`))
	f.Fuzz(func(t *testing.T, lines []byte) {
		readings, err := NewLineDecoder().Decode(nil, lines)
		if err != nil {
			return
		}
		// What is decoded and can be written comes back the same.
		for _, r := range readings {
			line, err := AppendReading(nil, &r)
			if err != nil {
				continue
			}
			if strings.Count(string(line), "\n") != 1 {
				t.Fatalf("not one line: %q", line)
			}
			again, err := NewLineDecoder().Decode(nil, line)
			if err != nil || len(again) != 1 {
				t.Fatalf("%q: %v", line, err)
			}
			second, err := AppendReading(nil, &again[0])
			if err != nil || string(second) != string(line) {
				t.Fatalf("%v\n%q\n%q", err, line, second)
			}
		}
	})
}

func FuzzReading(f *testing.F) {
	f.Add("kim-long", "river", "level_m", 3.62, "word", "key", "value", int64(5), int64(1e9))
	f.Add(`a\`, `b=`, "c,", math.Inf(1), "\"\\\n", `\`, ` \ `, int64(-1), int64(1))
	f.Fuzz(func(t *testing.T, device, kind, name string, number float64, text, key, value string, at, delay int64) {
		r := telemetry.Reading{
			Device: device, Kind: kind, Time: time.Unix(0, at).UTC(), Delay: time.Duration(delay),
			Values: []telemetry.Value{{Name: name, Number: number}},
			Tags:   []telemetry.Tag{{Key: key, Value: value}},
		}
		if text = strings.NewReplacer("\n", " ", "\r", " ").Replace(strings.ToValidUTF8(text, "\uFFFD")); text != "" {
			r.Values = append(r.Values, telemetry.Value{Name: "w", Text: text})
		}
		line, err := AppendReading(nil, &r)
		if err != nil || value == "" || strings.HasSuffix(name, "_text") || telemetry.Reserved(name) || name == "w" {
			return
		}
		if r.Delay < 0 {
			r.Delay = 0
		}
		got, err := NewLineDecoder().Decode(nil, line)
		if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], r) {
			t.Fatalf("%q: %v\ngot  %+v\nwant %+v", line, err, got, r)
		}
	})
}

func fourValues() telemetry.Reading {
	return telemetry.Reading{
		Device: "weather-017", Kind: "weather", Site: "thuan-an", Time: noon,
		Values: []telemetry.Value{{Name: "temp_c", Number: 27.4}, {Name: "humidity_pct", Number: 81.25}, {Name: "wind_ms", Number: 3.125}, {Name: "pressure_hpa", Number: 1008.7}},
	}
}

func BenchmarkEncode(b *testing.B) {
	r := fourValues()
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	begin := cpu(b)
	for b.Loop() {
		buf, _ = AppendReading(buf[:0], &r)
	}
	b.ReportMetric(float64((cpu(b)-begin).Nanoseconds())/float64(b.N), "cpu-ns/reading")
}

func BenchmarkDecode(b *testing.B) {
	r := fourValues()
	var lines []byte
	for range 1000 {
		lines, _ = AppendReading(lines, &r)
	}
	d := NewLineDecoder()
	b.ReportAllocs()
	begin := cpu(b)
	for b.Loop() {
		if _, err := d.Decode(make([]telemetry.Reading, 0, 1000), lines); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpu(b)-begin).Nanoseconds())/float64(b.N)/1000, "cpu-ns/reading")
}
