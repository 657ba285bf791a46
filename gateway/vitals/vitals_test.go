package vitals

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/influxdata/line-protocol/v2/lineprotocol"
)

func TestLine(t *testing.T) {
	at := time.Unix(0, 7)
	got := string(NewLine(Device, "kim-long", "huong").Number("state", Silent).Word("name", `Trạm "Kim Long"`).AppendTo(nil, at))
	if want := `haidang_device,device=kim-long,site=huong state=-1,name_text="Trạm \"Kim Long\"" 7` + "\n"; got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	if got := NewLine(Gateway, "g", "g").Number("ready", math.NaN()).Number("lag_s", math.Inf(1)).AppendTo(nil, at); got != nil {
		t.Errorf("a line without fields: %s", got)
	}
}

// FuzzLine holds every line to what a reader of line protocol reads back.
func FuzzLine(f *testing.F) {
	f.Add("modbus.line-1", "i/o timeout", 1.5)
	f.Add(`a,b=c d\`, "x\ny\"z\\", math.Copysign(0, -1))
	f.Add("", "", 1e300)
	f.Fuzz(func(t *testing.T, tag, word string, number float64) {
		text := NewLine(Source, "gw", "gw").Tag("source", tag).Word("problem", word).Number("running", number).AppendTo(nil, time.Unix(1, 0))
		d := lineprotocol.NewDecoderWithBytes(text)
		if !d.Next() {
			t.Fatalf("no line in %q", text)
		}
		if name, err := d.Measurement(); err != nil || string(name) != Source {
			t.Fatalf("measurement %q: %v", name, err)
		}
		for {
			key, _, err := d.NextTag()
			if err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			if key == nil {
				break
			}
		}
		for {
			key, value, err := d.NextField()
			if err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			if key == nil {
				break
			}
			if string(key) == "problem_text" && value.StringV() != clean(word) {
				t.Errorf("word %q came back as %q", word, value.StringV())
			}
		}
		if _, err := d.TimeBytes(); err != nil || d.Next() {
			t.Errorf("%q: time %v, or more than one line", text, err)
		}
	})
}

func TestFieldsHaveUnits(t *testing.T) {
	for _, m := range Measurements() {
		if !strings.HasPrefix(m.Name, Prefix) {
			t.Errorf("%s does not begin with %s", m.Name, Prefix)
		}
		for _, field := range m.Fields {
			if strings.ToLower(field) != field || strings.Contains(field, "-") {
				t.Errorf("%s.%s is not written in small letters and _", m.Name, field)
			}
		}
	}
}
