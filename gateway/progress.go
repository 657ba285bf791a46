package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"haidang/gateway/replay"
)

// vietnam is the zone in which times are shown; it has no summer time.
var vietnam = time.FixedZone("+07", 7*60*60)

// A meter shows how far something has come: a bar on a terminal, a line now and
// then elsewhere.
type meter struct {
	out      io.Writer
	terminal bool
	share    func() float64 // 0..1
	at       time.Time      // of the newest record
	started  time.Time
	shown    time.Time
}

func newMeter(out io.Writer, share func() float64) *meter {
	m := &meter{out: out, share: share, started: time.Now(), shown: time.Now()}
	if f, ok := out.(*os.File); ok {
		m.terminal = term.IsTerminal(int(f.Fd()))
	}
	return m
}

// show prints the state if it is time to.
func (m *meter) show(n int, noun string, at time.Time) {
	m.at = at
	every := 5 * time.Second
	if m.terminal {
		every = 200 * time.Millisecond
	}
	if time.Since(m.shown) < every {
		return
	}
	m.shown = time.Now()
	share := min(max(m.share(), 0), 1)
	rate := float64(n) / time.Since(m.started).Seconds()
	text := fmt.Sprintf("%3.0f %%  %d %s  %.0f/s  at %s", 100*share, n, noun, rate, at.In(vietnam).Format("2006-01-02 15:04"))
	if !m.terminal {
		fmt.Fprintln(m.out, text)
		return
	}
	const width = 24
	full := int(share * width)
	fmt.Fprintf(m.out, "\r\x1b[K[%s%s] %s", strings.Repeat("#", full), strings.Repeat(".", width-full), text)
}

// done ends the bar's line.
func (m *meter) done() {
	if m.terminal {
		fmt.Fprint(m.out, "\r\x1b[K")
	}
}

// shareOf is how much of the files was read.
func shareOf(files []*replay.File) float64 {
	var done, size int64
	for _, f := range files {
		done, size = done+f.Done(), size+f.Size
	}
	if size == 0 {
		return 1
	}
	return float64(done) / float64(size)
}
