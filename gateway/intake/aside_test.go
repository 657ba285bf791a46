package intake

import (
	"reflect"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// TestAside: what was set aside is read again as it was.
func TestAside(t *testing.T) {
	b := setup(t, true)
	r := telemetry.Reading{
		Device: "ao-tom", Kind: "pond", Time: time.Date(2025, 10, 27, 13, 0, 0, 5, time.UTC), Quality: telemetry.Suspect,
		Values: []telemetry.Value{{Name: "note", Text: "mặn"}, {Name: "salt", Number: 31.5, Quality: telemetry.Suspect}},
		Tags:   []telemetry.Tag{{Key: "probe", Value: "a"}},
	}
	b.Accept("broker", []telemetry.Reading{r}, nil)
	if len(b.letters.records) != 1 {
		t.Fatal(b.letters.records)
	}
	letter := b.letters.records[0]
	got, ok := ParseAside(&letter)
	if !ok || !reflect.DeepEqual(got, r) {
		t.Errorf("%s is read as\n%+v, %v; it was\n%+v", letter.Bytes, got, ok, r)
	}
	if reason, _ := b.Refusal(&got); reason != "unknown_kind" {
		t.Errorf("refused for %q", reason)
	}
	letter.Place = "telemetry/ao-tom/pond" // a payload that looks like it
	if _, ok := ParseAside(&letter); ok {
		t.Error("a payload is taken for a reading")
	}
}

// FuzzParseAside: whatever is read is written and read again as the same.
func FuzzParseAside(f *testing.F) {
	f.Add("ao-tom", "pond", []byte(`{"device":"ao-tom","kind":"pond","time":"2025-10-27T13:00:00Z","values":{"salt":31.5,"note":"x"},"qualities":{"salt":"bad"},"tags":{"a":"b"}}`))
	f.Add("a", "b", []byte(`{"device":"a","kind":"b","values":{"x":"NaN"}}`))
	f.Add("a", "b", []byte(`{"device":"a","kind":"b","values":{"x":[1]}}`))
	f.Fuzz(func(t *testing.T, device, kind string, text []byte) {
		r, ok := ParseAside(&telemetry.DeadLetter{Place: device + "/" + kind, Bytes: text})
		if !ok {
			return
		}
		again, ok := ParseAside(&telemetry.DeadLetter{Place: r.Device + "/" + r.Kind, Bytes: asideOf(&r)})
		if !ok || len(again.Values) != len(r.Values) || len(again.Tags) != len(r.Tags) || !again.Time.Equal(r.Time) {
			t.Fatalf("%+v, again %+v, %v", r, again, ok)
		}
	})
}
