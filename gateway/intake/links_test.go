package intake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"haidang/gateway/telemetry"
)

// full is a log that refuses while it is told to.
type full struct {
	mu      sync.Mutex
	err     error
	refused int
	taken   []string // device=up
	times   []time.Time
}

func (f *full) AppendAsync(records []telemetry.Reading, done func(error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.err
	for i := range records {
		if err != nil {
			f.refused++
			continue
		}
		up, _ := records[i].Number("up")
		f.taken = append(f.taken, fmt.Sprint(records[i].Device, "=", up))
		f.times = append(f.times, records[i].Time)
	}
	if done != nil {
		go done(err)
	}
}

func (f *full) refuse(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *full) took() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.taken
	f.taken = nil
	slices.Sort(out)
	return out
}

// TestLinksToldAgain: what a full log refuses of links is told again when it takes
// readings, as things stand then, with the time of then.
func TestLinksToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, false)
		log := &full{err: errors.New("the log is full")}
		b.opts.Readings = log
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.Run(ctx) }()
		link := func(device string, up bool) telemetry.Reading { return telemetry.Link(device, up, errors.New("gone")) }

		b.Accept("mqtt", []telemetry.Reading{link("kim-long", true)}, nil)
		b.Accept("mqtt", []telemetry.Reading{link("phu-oc", true)}, nil)
		synctest.Wait()
		b.Accept("mqtt", []telemetry.Reading{link("phu-oc", false)}, nil)
		b.Accept("mqtt", []telemetry.Reading{river(1)}, nil) // who sends it may send it again
		own := link("truong-tien", true)
		own.Time = b.clock.at
		b.Accept("mqtt", []telemetry.Reading{own}, nil)
		answer := make(chan error, 1)
		b.Accept("mqtt", []telemetry.Reading{link("bach-ma", true)}, func(err error) { answer <- err })
		if err := <-answer; err == nil {
			t.Error("who told it is not told that it was refused")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if log.refused < 10 {
			t.Errorf("%d refusals in a minute: it does not try", log.refused)
		}
		b.clock.at = b.clock.at.Add(time.Hour)
		b.Accept("mqtt", []telemetry.Reading{link("bach-ma", false)}, nil)
		log.refuse(nil)
		b.Accept("mqtt", []telemetry.Reading{link("bach-ma", true)}, nil)
		time.Sleep(tellAgain)
		synctest.Wait()
		if got, want := log.took(), []string{"bach-ma=1", "kim-long=1", "phu-oc=0"}; !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
		for _, at := range log.times {
			if at.Before(b.clock.at) {
				t.Errorf("told with the time %s, want that of now, %s", at, b.clock.at)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := log.took(); len(got) > 0 {
			t.Errorf("told once more: %q", got)
		}
		// What cannot be written is not tried for ever.
		log.refuse(&telemetry.Rejection{})
		b.Accept("mqtt", []telemetry.Reading{link("kim-long", false)}, nil)
		synctest.Wait()
		before := log.refused
		time.Sleep(time.Minute)
		synctest.Wait()
		if log.refused != before {
			t.Errorf("%d more tries of what can never be written", log.refused-before)
		}
		// Many, in one go when there is room.
		log.refuse(errors.New("the log is full"))
		for i := range 3 * tellTogether {
			b.Accept("mqtt", []telemetry.Reading{link(fmt.Sprint("buoy-", i), true)}, nil)
		}
		synctest.Wait()
		log.refuse(nil)
		time.Sleep(tellAgain)
		synctest.Wait()
		if got := log.took(); len(got) != 3*tellTogether {
			t.Errorf("%d of %d told", len(got), 3*tellTogether)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
