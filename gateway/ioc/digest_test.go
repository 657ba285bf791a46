package ioc

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/ioc/cap"
	"haidang/gateway/telemetry"
)

// basin has devices that are called after their river: huong-12.
type basin struct{ nowhere }

func (basin) Device(id string) *telemetry.Device {
	river, _, _ := strings.Cut(id, "-")
	d := &telemetry.Device{ID: id, Name: "Trạm " + id}
	if river != "none" {
		d.Facts = map[string]any{"river": river}
	}
	return d
}

// A listener remembers what it was told, and when.
type listener struct {
	fail func() error // nil: takes everything

	mu      sync.Mutex
	began   time.Time
	heard   []string
	digests []Digest
}

func (l *listener) hear(what string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		if err := l.fail(); err != nil {
			return err
		}
	}
	l.heard = append(l.heard, fmt.Sprintf("%.0fs %s", time.Since(l.began).Seconds(), what))
	return nil
}

func (l *listener) Deliver(_ context.Context, w telemetry.Warning) error { return l.hear(w.Key()) }
func (l *listener) DeliverDigest(_ context.Context, d Digest) error {
	err := l.hear(fmt.Sprintf("%s: %d, first %s", d.Region.VI, len(d.Warnings), d.Warnings[0].Severity))
	if err == nil {
		l.digests = append(l.digests, d)
	}
	return err
}

func stormy(l *listener, reg prometheus.Registerer) *Recipient {
	l.began = time.Now()
	r := NewRecipient("committee", l, Options{Registerer: reg, Logger: slog.New(slog.DiscardHandler)})
	r.digester = l
	r.storm = newStorm(DigestConfig{}, cap.NewComposer(cap.Config{}, basin{}, "box").Region)
	return r
}

// 500 stations cross at once. Their transitions come in the log as they are
// written, and the follower hands over what there is.
func TestAStormIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listener{}
		reg := prometheus.NewRegistry()
		sender := stormy(l, reg).Sender(All)
		var log []telemetry.Transition
		for i := range 500 {
			river := []string{"Huong", "Bo", "OLau"}[i%3]
			w := flooded(fmt.Sprintf("%s-%03d", river, i), 1, telemetry.Severe)
			if i%3 == 1 && i > 300 {
				w.Severity = telemetry.Extreme
			}
			log = append(log, transitions(w)...)
		}
		written := func() int { // 3, then 100 in each second
			return min(len(log), 3+int(time.Since(l.began).Seconds()*100))
		}
		for position := 0; position < len(log); {
			n := min(written(), position+200)
			if n == position {
				_ = sleep(t.Context(), 10*time.Millisecond)
				continue
			}
			if err := sender.Accept(t.Context(), log[position:n]); err != nil {
				t.Fatal(err)
			}
			position = n
		}
		singles, told := 0, map[string]bool{}
		for _, h := range l.heard {
			if strings.Contains(h, "/1") {
				singles++
			}
		}
		for _, d := range l.digests {
			for i, w := range d.Warnings {
				if told[w.Key()] || !strings.HasPrefix("Sông "+w.Device, d.Region.VI) {
					t.Errorf("%s is told twice, or under %s", w.Key(), d.Region.VI)
				}
				told[w.Key()] = true
				if i > 0 && rank(&w) > rank(&d.Warnings[i-1]) {
					t.Errorf("%s after a lesser one", w.Key())
				}
			}
		}
		if len(told)+singles != 500 || singles > DefaultMoreThan || len(l.heard) > 20 {
			t.Errorf("%d by themselves, %d together, in %d messages:\n%s", singles, len(told), len(l.heard), strings.Join(l.heard, "\n"))
		}
		if took := time.Since(l.began); took > time.Minute {
			t.Errorf("it took %s", took)
		}
		counted(t, reg, "haidang_ioc_folded_total", map[string]float64{"": float64(len(told))})
		t.Logf("%s", strings.Join(l.heard, "\n"))
	})
}

func TestDigestsOfAStormAreOneThread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listener{}
		sender := stormy(l, nil).Sender(All)
		batch := func(n int, severity telemetry.Severity) (out []telemetry.Transition) {
			for i := range 10 {
				out = append(out, transitions(flooded(fmt.Sprintf("Huong-%d", i), n, severity))...)
			}
			return out
		}
		// Two transitions of a warning in one batch: the newer one is told.
		if err := sender.Accept(t.Context(), append(batch(1, telemetry.Severe), batch(2, telemetry.Extreme)...)); err != nil {
			t.Fatal(err)
		}
		if err := sender.Accept(t.Context(), batch(3, telemetry.Severe)); err != nil {
			t.Fatal(err)
		}
		if err := sender.Accept(t.Context(), batch(3, telemetry.Severe)); err != nil { // again, after a restart of the follower
			t.Fatal(err)
		}
		if len(l.digests) != 2 || !slices.Equal(l.digests[1].Earlier, []string{l.digests[0].Key}) || l.digests[0].Warnings[0].N != 2 {
			t.Errorf("%v", l.heard)
		}
		_ = sleep(t.Context(), 7*time.Hour)
		if err := sender.Accept(t.Context(), batch(4, telemetry.Extreme)); err != nil {
			t.Fatal(err)
		}
		if len(l.digests) != 3 || len(l.digests[2].Earlier) != 0 {
			t.Error("the next storm continues the last one")
		}
	})
}

func TestDigestThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listener{}
		left := 3
		l.fail = func() error {
			if left--; left >= 0 {
				return &Failure{Reason: reasonTimeout, Detail: "it does not answer"}
			}
			return nil
		}
		sender := stormy(l, nil).Sender(All)
		var batch []telemetry.Transition
		for i := range 10 {
			batch = append(batch, transitions(flooded(fmt.Sprintf("none-%d", i), 1, telemetry.Severe))...)
		}
		if err := sender.Accept(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if len(l.digests) != 1 || l.digests[0].Region.EN != "Elsewhere" {
			t.Errorf("%v", l.heard)
		}
	})
}

// A bound on messages holds them back, a fifth is kept for the grave ones, and
// nobody is told what is out of date by then.
func TestRateIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listener{}
		l.began = time.Now()
		reg := prometheus.NewRegistry()
		r := NewRecipient("ioc", l, Options{Registerer: reg, Logger: slog.New(slog.DiscardHandler)})
		r.meter = newMeter(RateConfig{Most: 10, Per: telemetry.Duration(10 * time.Second)})
		rest, grave := r.Sender(Rest), r.Sender(Grave)
		var batch []telemetry.Transition
		for n := range 3 {
			for i := range 20 {
				batch = append(batch, transitions(flooded(fmt.Sprintf("d%d", i), n+1, telemetry.Minor))...)
			}
		}
		done := make(chan error)
		go func() { done <- rest.Accept(t.Context(), batch) }()
		synctest.Wait()
		if len(l.heard) != 8 {
			t.Errorf("%d lesser ones at once, want 8 of 10", len(l.heard))
		}
		if err := grave.Accept(t.Context(), transitions(flooded("x", 1, telemetry.Extreme))); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(l.began); took > 0 {
			t.Errorf("a grave one waits %s", took)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(l.began); len(l.heard) != 21 || took < 12*time.Second || took > 15*time.Second {
			t.Errorf("%d messages in %s", len(l.heard), took)
		}
		for _, h := range l.heard {
			if !strings.HasSuffix(h, "/3") && !strings.Contains(h, "x-flood") {
				t.Errorf("told %s, which is out of date", h)
			}
		}
		counted(t, reg, "haidang_ioc_skipped_total", map[string]float64{"superseded": 40})
	})
}

func TestDigestInWords(t *testing.T) {
	from := bulletins()
	var list []telemetry.Warning
	for i := range 60 {
		w := flooded(fmt.Sprintf("Huong-%02d", i), 1, telemetry.Severe)
		from.Chronicle.Apply(w)
		if i == 7 {
			w.N, w.Severity = 2, telemetry.Extreme
		}
		if i < 5 {
			w.N, w.State = 2, telemetry.Cleared
		}
		from.Chronicle.Apply(w)
		list = append(list, w)
	}
	d := newStorm(DigestConfig{}, cap.NewComposer(cap.Config{}, basin{}, "box").Region).digests(list, time.Now())[0]
	d.Earlier = []string{"digest-1"}
	server := &mailServer{}
	if err := NewSMTP(mailer(server.start(t)), from).DeliverDigest(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	header, subject, parts := read(t, server.mails[0])
	if subject != "[đặc biệt nghiêm trọng] Sông Huong: 60 cảnh báo (cập nhật 1)" || header.Get("In-Reply-To") != "<digest-1@hue.example>" {
		t.Errorf("%q %v", subject, header)
	}
	for _, part := range []string{"1 đặc biệt nghiêm trọng, 54 nghiêm trọng, 5 kết thúc.\r\n- đặc biệt nghiêm trọng: Lũ: Mực nước", "và 20 cảnh báo khác"} {
		if !strings.Contains(parts[0], part) {
			t.Errorf("no %q in\n%s", part, parts[0])
		}
	}
	if !strings.Contains(parts[1], "[extreme] Huong river: 60 warnings (update 1)") || !strings.Contains(parts[1], "5 over.") {
		t.Errorf("%s", parts[1])
	}
	m := &simModem{}
	s := smsOf(m)
	if err := s.DeliverDigest(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if got := m.got("112"); len(got) != 1 || !strings.HasPrefix(got[0], "[đặc biệt nghiêm trọng] Sông Huong: 60 cảnh báo (cập nhật 1): 1 đặc biệt nghiêm trọng, 54") || !strings.HasSuffix(got[0], "5 kết thúc. Huong-07; Huong-05; Huong-06; …") {
		t.Errorf("%q", got)
	}
}
