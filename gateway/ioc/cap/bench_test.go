package cap

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func BenchmarkMessage(b *testing.B) {
	composer, c := NewComposer(configured(), rivers{}, "box"), NewChronicle()
	list := flood()
	for _, w := range list[:8] {
		c.Apply(w)
	}
	b.ReportAllocs()
	for b.Loop() {
		bulletin, _ := c.Of(list[8])
		if _, err := composer.Message(&bulletin).Encode(); err != nil {
			b.Fatal(err)
		}
	}
}

// A public feed of 200 floods that is polled by many.
func BenchmarkFeedPolled(b *testing.B) {
	now := hue("2025-10-26 15:00")
	c := NewChronicle()
	for i := range maxEntries {
		w := level("kim-long", 1, "2025-10-26 14:00", 3, 3, 2)
		w.ID = fmt.Sprintf("w%d", i)
		c.Apply(w)
	}
	f := NewFeed(c, NewComposer(configured(), rivers{}, "box"), "box", func() time.Time { return now })
	r := httptest.NewRequest(http.MethodGet, FeedPath, nil)
	b.ReportAllocs()
	for b.Loop() {
		f.ServeHTTP(httptest.NewRecorder(), r)
	}
}
