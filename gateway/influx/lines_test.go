package influx

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/influxdata/influxdb/models"
)

func TestSplitLines(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"\n\n", ""},
		{"a f=1 1", "0:a f=1 1"},
		{"a f=1 1\n\r\nb f=2 2\r\n", "0:a f=1 1|1:b f=2 2\r"},
		{"_tick f=1 1\na f=1 1\n_clock f=1 1\nb f=1", "1:a f=1 1|3:b f=1"},
		{"a f=\"x\ny\" 1\nb f=1 1", "0:a f=\"x\ny\" 1|1:b f=1 1"},
		{"a f=\"x\\\"\ny\" 1\nb f=1 1", "0:a f=\"x\\\"\ny\" 1|1:b f=1 1"},
		{"a,t=\" f=1 1\nb,t=\" f=1 1", "0:a,t=\" f=1 1|1:b,t=\" f=1 1"},
	} {
		var got []string
		for _, l := range splitLines([]byte(c.text)) {
			got = append(got, fmt.Sprintf("%d:%s", l.index, l.text))
		}
		if strings.Join(got, "|") != c.want {
			t.Errorf("%q: got %q, want %q", c.text, strings.Join(got, "|"), c.want)
		}
	}
}

// FuzzSplitLines holds our idea of a line against the engine's: what it parses
// from the whole text is what it parses from the lines one by one.
func FuzzSplitLines(f *testing.F) {
	for _, seed := range []string{
		"a,t=x f=1 1\nb f=\"p\nq\",g=2 2\n",
		"a,t=\" f=1 1\nb f=\"\\\"\" 1",
		"a\\\nb f=1 1\n",
		"a f=\"open 1\nb f=1 1\n",
		" a f=1 1 \n\t\nb f=1",
	} {
		f.Add([]byte(seed))
	}
	now := time.Unix(0, 0)
	f.Fuzz(func(t *testing.T, text []byte) {
		// Records of the log itself are left out by design; see splitLines.
		if bytes.HasPrefix(text, []byte("_")) || bytes.Contains(text, []byte("\n")) && bytes.Contains(text, []byte("_")) {
			t.Skip()
		}
		whole, _ := models.ParsePointsWithPrecision(bytes.Clone(text), now, "n")
		var single []models.Point
		for _, l := range splitLines(text) {
			points, _ := models.ParsePointsWithPrecision(append(bytes.Clone(l.text), '\n'), now, "n")
			single = append(single, points...)
		}
		if len(whole) != len(single) {
			t.Fatalf("%q: the engine finds %d points, our lines hold %d", text, len(whole), len(single))
		}
		for i := range whole {
			if whole[i].String() != single[i].String() {
				t.Fatalf("%q: point %d is %q, of our lines %q", text, i, whole[i], single[i])
			}
		}
	})
}
