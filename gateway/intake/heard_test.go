package intake

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"
	"unsafe"

	"haidang/gateway/telemetry"
)

// TestHeardWordsAreCut: the list of devices keeps the beginning of a word, whole
// characters of it, and not the payload that it was part of.
func TestHeardWordsAreCut(t *testing.T) {
	b := setup(t, false)
	payload := []byte("moodxxx" + strings.Repeat("nước ", 1800))
	view := unsafe.String(&payload[0], len(payload))
	r := telemetry.Reading{Device: "kim-long", Kind: "river", Values: []telemetry.Value{
		{Name: "level_m", Number: 1}, {Name: view[:4], Text: view[4:]}, {Name: "short", Text: "calm"},
	}}
	whole := strings.Clone(r.Values[1].Text)
	if got := b.accept(t, r)[0]; got.Values[1].Text != whole {
		t.Error("the word was cut in the log too")
	}
	copy(payload, bytes.Repeat([]byte("#"), len(payload))) // the source uses its buffer again
	h, _ := b.HeardOf("kim-long")
	values := h.Latest[0].Values
	word := values[1].Text
	if len(word) > maxHeardWord || len(word) < maxHeardWord-utf8.UTFMax || !utf8.ValidString(word) || !strings.HasPrefix(whole, word) {
		t.Errorf("%d bytes are kept, %.300q; want the first %d without half a character", len(word), word, maxHeardWord)
	}
	if values[1].Name != "mood" || values[2].Text != "calm" || values[0].Number != 1 {
		t.Errorf("values %+v", values)
	}
}

// TestHeardMemory: what is remembered of many devices with long words is small.
func TestHeardMemory(t *testing.T) {
	b := setup(t, false)
	const devices = 200
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range devices {
		r := telemetry.Reading{Device: fmt.Sprint("d", i), Kind: "k"}
		for j := range 10 {
			r.Values = append(r.Values, telemetry.Value{Name: fmt.Sprint("w", j), Text: strings.Repeat("x", 15_000)})
		}
		b.accept(t, r)
		b.readings.records = b.readings.records[:0]
	}
	b.readings.records = nil
	runtime.GC()
	runtime.ReadMemStats(&after)
	if held := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / devices; held > 10<<10 {
		t.Errorf("%d bytes are held for each device with 150 KB of words", held)
	}
	runtime.KeepAlive(b)
}
