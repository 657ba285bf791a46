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

// progress shows how far a replay has come: a bar on a terminal, a line now and
// then elsewhere.
type progress struct {
	out      io.Writer
	terminal bool
	files    []*replay.File
	file     int
	started  time.Time
	shown    time.Time
}

func newProgress(out io.Writer, files []*replay.File) *progress {
	p := &progress{out: out, files: files, started: time.Now(), shown: time.Now()}
	if f, ok := out.(*os.File); ok {
		p.terminal = term.IsTerminal(int(f.Fd()))
	}
	return p
}

// show prints the state if it is time to.
func (p *progress) show(records int, at time.Time) {
	every := 5 * time.Second
	if p.terminal {
		every = 200 * time.Millisecond
	}
	if time.Since(p.shown) < every {
		return
	}
	p.shown = time.Now()
	var done, size int64
	for _, f := range p.files {
		done, size = done+f.Done(), size+f.Size
	}
	share := 1.0
	if size > 0 {
		share = float64(done) / float64(size)
	}
	rate := float64(records) / time.Since(p.started).Seconds()
	text := fmt.Sprintf("%3.0f %%  %d records  %.0f/s  at %s", 100*share, records, rate, at.In(vietnam).Format("2006-01-02 15:04"))
	if !p.terminal {
		fmt.Fprintln(p.out, text)
		return
	}
	const width = 24
	full := int(share * width)
	fmt.Fprintf(p.out, "\r\x1b[K[%s%s] %s", strings.Repeat("#", full), strings.Repeat(".", width-full), text)
}

// done ends the bar's line.
func (p *progress) done() {
	if p.terminal {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
