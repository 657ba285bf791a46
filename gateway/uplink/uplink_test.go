package uplink

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// inBoth runs a test with a log of one partition and of four.
func inBoth(t *testing.T, run func(*testing.T, *base)) {
	for _, partitions := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d partitions", partitions), func(t *testing.T) {
			t.Parallel()
			run(t, newBaseOf(t, partitions))
		})
	}
}

var errFull, errUnsure = fmt.Errorf("append: %w", spool.ErrFull), fmt.Errorf("append: %w", spool.ErrUnavailable)

// TestOnceAndInOrder loses answers, refuses writes, hides that they were made, and
// restarts both sides: the centre's log has each reading once and in order.
func TestOnceAndInOrder(t *testing.T) {
	t.Parallel()
	inBoth(t, onceAndInOrder)
}

func onceAndInOrder(t *testing.T, c *base) {
	f := newBox(t, "box", Config{URL: c.server.URL, Heartbeat: telemetry.Duration(time.Second)})
	f.receive(20, 50)
	f.run()
	eventually(t, "what was there", f.pushed)
	one := spool.PartitionOf("d1", c.parts)
	type step struct {
		what string
		do   func()
	}
	steps := []step{
		{"answers are lost", func() { c.set(func() { c.misfires = 2 }) }},
		{"the log is full", func() { c.fail(-1, failing{says: errFull}) }},
		{"room again", func() { c.fail(-1, failing{}) }},
		{"it says that it cannot write, and does", func() { c.fail(-1, failing{says: errUnsure, after: true}) }},
		{"it can", func() { c.fail(-1, failing{}) }},
		{"it cannot write", func() { c.fail(-1, failing{says: errUnsure}) }},
		{"it can", func() { c.fail(-1, failing{}) }},
		{"answers are lost before a restart", func() { c.set(func() { c.misfires = 1 }); f.receive(1, 10); f.restart() }},
		{"both restart", func() { c.restart(); f.restart() }},
	}
	if c.parts > 1 {
		steps = append(steps, []step{
			{"a partition is full", func() { c.fail(one, failing{says: errFull}) }},
			{"the centre restarts in the middle of a piece", c.restart},
			{"room again", func() { c.fail(one, failing{}) }},
			{"a partition says that it cannot write, and does", func() { c.fail(one, failing{says: errUnsure, after: true}) }},
			{"the field restarts and cuts its log otherwise", func() { f.config.MaxRate = 64 << 10; f.restart() }},
			{"it can", func() { c.fail(one, failing{}) }},
			{"a partition cannot write", func() { c.fail(one, failing{says: errUnsure}) }},
			{"both restart in the middle of a piece, and the field cuts its log otherwise", func() { f.config.MaxRate = 0; c.restart(); f.restart() }},
			{"it can", func() { c.fail(one, failing{}) }},
		}...)
	}
	for _, step := range steps {
		step.do()
		f.receive(3, 40)
		f.receiveLong(1, 700, 600) // more than a parcel
		if c.isFailing() {
			c.set(func() { c.epoch, c.tries = c.epoch+1, 0 })
			eventually(t, step.what, func() bool {
				c.mu.Lock()
				defer c.mu.Unlock()
				return c.tries > 0
			})
			continue
		}
		eventually(t, step.what, f.pushed)
		if err := c.wrong(f.next); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
	}
	if n := c.said.count("the log does not take"); n < 1 || n > 9 {
		t.Errorf("a log that does not take is told %d times", n)
	}
}

// TestByChance does all that can go wrong in any order (HAIDANG_UPLINK_STEPS, 24;
// HAIDANG_UPLINK_SEED): the centre has each reading once and in order.
func TestByChance(t *testing.T) {
	t.Parallel()
	steps, seed := 24, rand.Uint64()
	if text := os.Getenv("HAIDANG_UPLINK_STEPS"); text != "" {
		steps, _ = strconv.Atoi(text)
	}
	if text := os.Getenv("HAIDANG_UPLINK_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	inBoth(t, func(t *testing.T, c *base) { byChance(t, c, steps, seed) })
}

func byChance(t *testing.T, c *base, steps int, seed uint64) {
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, uint64(c.parts)))
	f := newBox(t, "box", Config{URL: c.server.URL, Heartbeat: telemetry.Duration(time.Second)})
	f.run()
	for n := range steps {
		f.receiveLong(chance.IntN(3), 1+chance.IntN(500), 500)
		partition := chance.IntN(c.parts)
		switch what := chance.IntN(8); what {
		case 0:
			c.fail(partition, failing{says: errFull})
		case 1, 2:
			c.fail(partition, failing{says: errUnsure, after: what == 1})
		case 3:
			c.fail(-1, failing{})
		case 4:
			c.set(func() { c.misfires = chance.IntN(3) })
		case 5:
			c.restart()
		case 6:
			f.config.MaxRate = []Rate{0, 256 << 10, 2 << 20}[chance.IntN(3)]
			f.restart()
		case 7:
			if err := c.receiver.save(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-time.After(time.Duration(chance.IntN(40)) * time.Millisecond):
		case <-t.Context().Done():
		}
		if n%12 != 11 {
			continue
		}
		c.fail(-1, failing{})
		c.set(func() { c.misfires = 0 })
		f.config.MaxRate = 0
		f.restart()
		eventually(t, "pushed", f.pushed)
		if err := c.wrong(f.next); err != nil {
			t.Fatalf("after %d steps: %v", n+1, err)
		}
	}
}

// TestLate: what an earlier owner of the part has sent arrives when the next one has
// opened the log, or has made sure of it, before the field sends it again; or when
// that is on disk.
func TestLate(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"opened", "sure", "after"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			c := newBaseOf(t, 4)
			f := newBox(t, "box", Config{URL: c.server.URL, Heartbeat: telemetry.Duration(time.Second)})
			f.receive(20, 50)
			f.run()
			eventually(t, "what was there", f.pushed)
			type sent struct {
				partition int
				id        string
				records   []telemetry.Reading
			}
			var mu sync.Mutex
			var late []sent
			for n := range c.parts {
				c.fail(n, failing{says: errUnsure, later: func(id string, records []telemetry.Reading) {
					mu.Lock()
					defer mu.Unlock()
					if id != "" {
						late = append(late, sent{n, id, records})
					}
				}})
			}
			f.receive(1, 3000)
			eventually(t, "it is on its way", func() bool { mu.Lock(); defer mu.Unlock(); return len(late) > 1 })
			held := make(chan struct{})
			c.set(func() { c.holds = held })
			c.fail(-1, failing{})
			c.restart()
			earlier := openSpool(t, t.TempDir(), nil, func(o *spool.Options) {
				o.Config = spool.Config{URL: c.cluster, Replicas: 1, Partitions: c.parts, MaxBytes: 256 << 20}
				o.Part = spool.Part{Role: spool.RoleIngest}
			})
			release := func() { c.set(func() { c.holds = nil }); close(held) }
			if when == "after" {
				release()
				eventually(t, "pushed", f.pushed)
			}
			if when == "sure" {
				if err := c.receiver.settle(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			taken := 0
			for _, one := range late {
				done := make(chan error, 1)
				earlier.ReadingsOf(one.partition).AppendOnce(one.id, one.records, func(err error) { done <- err })
				if err := <-done; err == nil {
					taken++
				} else if there := (*spool.ThereError)(nil); !errors.As(err, &there) {
					t.Fatal(err)
				}
			}
			if when != "after" {
				release()
				eventually(t, "pushed", f.pushed)
			}
			if (taken > 0) != (when != "after") {
				t.Errorf("%d of %d late frames are taken", taken, len(late))
			}
			f.receive(3, 100)
			eventually(t, "pushed on", f.pushed)
			if err := c.wrong(f.next); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestGivenFree lets go of the centre's log once a checkpoint knows what it says.
func TestGivenFree(t *testing.T) {
	t.Parallel()
	c := newBase(t)
	f := newBox(t, "box", Config{URL: c.server.URL})
	f.receive(5, 10)
	f.run()
	eventually(t, "pushed", f.pushed)
	for range 3 {
		if err := c.receiver.save(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if at := c.spool.Readings().Position("uplink.taken"); at != c.spool.Readings().Last() {
		t.Errorf("the log is kept from frame %d of %d on", at, c.spool.Readings().Last())
	}
	c.restart() // from the checkpoint alone
	if s := c.receiver.memory.of("box", f.sender.name()); s == nil || s.Readings.Seq == 0 {
		t.Errorf("the checkpoint says %+v", s)
	}
	f.receive(5, 10)
	eventually(t, "pushed on", f.pushed)
	if err := inOrder(c.taken(), f.next); err != nil {
		t.Error(err)
	}
}

// TestAnotherLog: the field's log is lost and begins anew, or loses its end: under
// another name, what is new is pushed, and nothing twice.
func TestAnotherLog(t *testing.T) {
	t.Parallel()
	c := newBase(t)
	f := newBox(t, "box", Config{URL: c.server.URL})
	f.receive(10, 5)
	f.run()
	eventually(t, "pushed", f.pushed)
	was := f.sender.name()
	f.stop()
	if err := f.sender.rename(t.Context(), was); err != nil { // as when Position is behind Last
		t.Fatal(err)
	}
	f.receive(10, 5)
	f.restart()
	eventually(t, "pushed under another name", f.pushed)
	if err := inOrder(c.taken(), f.next); err != nil {
		t.Error(err)
	}
	// A copy of the log comes back that is older than what was pushed since.
	f.stop()
	if err := errors.Join(f.spool.Close(), f.sender.Close()); err != nil {
		t.Fatal(err)
	}
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(f.dir)); err != nil {
		t.Fatal(err)
	}
	f.open(nil)
	f.receive(5, 5)
	f.run()
	eventually(t, "pushed, and then lost", f.pushed)
	f.stop()
	if err := errors.Join(f.spool.Close(), f.sender.Close()); err != nil {
		t.Fatal(err)
	}
	f.dir = copied
	f.open(nil)
	f.receive(10, 5)
	f.run()
	eventually(t, "pushed from the copy", f.pushed)
	if err := inOrder(c.taken(), f.next); err != nil {
		t.Error(err)
	}
	f.stop()
	if err := errors.Join(f.spool.Close(), f.sender.Close()); err != nil {
		t.Fatal(err)
	}
	f.dir = t.TempDir() // another card
	f.open(nil)
	f.run()
	eventually(t, "two gateways are told", func() bool { return c.said.count("two gateways push as") > 0 })
	c.receiver.mu.Lock()
	c.receiver.guests["box"].heard = time.Now().Add(-2 * stranger)
	c.receiver.mu.Unlock()
	f.receive(10, 5)
	eventually(t, "the new one is pushed", f.pushed)
	if err := inOrder(c.taken(), f.next); err != nil {
		t.Error(err)
	}
}

// TestGap tells what was gone before it was pushed, on both sides.
func TestGap(t *testing.T) {
	t.Parallel()
	c := newBase(t)
	f := newBox(t, "box", Config{URL: c.server.URL})
	f.receive(5, 10)
	f.run()
	eventually(t, "pushed", f.pushed)
	f.stop()
	// As with full: drop_oldest, the oldest of these go.
	if err := errors.Join(f.spool.Close(), f.sender.Close()); err != nil {
		t.Fatal(err)
	}
	f.open(func(o *spool.Options) { o.Config.MaxBytes, o.Config.Full = 4<<20, spool.DropOldest })
	f.receive(50, 2000)
	f.run()
	eventually(t, "pushed", f.pushed)
	taken := c.taken()
	if last := taken[len(taken)-1]; last != f.next || len(taken) >= f.next {
		t.Fatalf("%d of %d readings, the last is %d", len(taken), f.next, last)
	}
	if n := testutil.ToFloat64(f.sender.metrics.lost[logReadings]); n < 1 {
		t.Errorf("%v frames are counted as lost", n)
	}
	if letters := strings.Join(c.letters(), " "); letters != "gap" {
		t.Errorf("letters at the centre: %s", letters)
	}
}

// TestStrangers: devices that the account does not speak for, lines that cannot be read,
// and values out of range.
func TestStrangers(t *testing.T) {
	t.Parallel()
	c := newBase(t)
	c.account = &telemetry.Account{Name: "box", Role: telemetry.RoleGateway, Devices: []string{"d*"}, Life: t.Context()}
	f := newBox(t, "box", Config{URL: c.server.URL})
	for i, device := range []string{"d1", "stranger", "d2"} {
		f.next++
		r := telemetry.Reading{Device: device, Kind: "k", Time: time.Now().Add(-time.Hour), Quality: telemetry.Suspect, Values: []telemetry.Value{{Name: "n", Number: float64(1 - 2*i)}}}
		if err := f.spool.Readings().Append(t.Context(), []telemetry.Reading{r}); err != nil {
			t.Fatal(err)
		}
	}
	f.run()
	eventually(t, "pushed", f.pushed)
	seen := 0
	err := c.spool.Readings().Replay(t.Context(), func(r telemetry.Reading) {
		if r.Kind != "k" {
			return
		}
		seen++
		// -3 is outside the range of the kind: judged in the field, it is not judged again.
		if r.Quality != telemetry.Suspect || r.Source != "uplink.box" || r.Site != r.Device || r.Delay < time.Hour {
			t.Errorf("%+v", r)
		}
	})
	if err != nil || seen != 2 {
		t.Errorf("%d readings, %v", seen, err)
	}
	if letters := strings.Join(c.letters(), " "); letters != "not_own_device" {
		t.Errorf("letters: %s", letters)
	}
}

// transition is one of the field.
func transition(id string, n int, state telemetry.State, deed telemetry.Deed) telemetry.Transition {
	t := telemetry.Transition{Warning: telemetry.Warning{
		ID: id, N: n, Rule: "flood", Device: "d1", Site: "d1", Kind: "k", State: state, Severity: telemetry.Severe,
		Start: time.Date(2026, 11, 20, 1, 0, 0, 0, time.UTC), At: time.Date(2026, 11, 20, 1, n, 0, 0, time.UTC), To: []string{"somebody"}, AckedBy: "lan",
	}, Step: n}
	if deed != "" {
		t.Act, t.Step = &telemetry.Act{ID: id, Do: deed, By: "lan"}, 0
	}
	return t
}

// TestWarnings: steps of the rules travel and acts do not; what lasts is offered where
// the centre knows nothing, and what is over by then is ended.
func TestWarnings(t *testing.T) {
	t.Parallel()
	c := newBase(t)
	f := newBox(t, "box", Config{URL: c.server.URL, Heartbeat: telemetry.Duration(time.Second)})
	f.warn(transition("old", 1, telemetry.Active, ""), transition("old", 2, telemetry.Cleared, ""),
		transition("lasts", 1, telemetry.Active, ""), transition("lasts", 2, telemetry.Acknowledged, telemetry.Ack))
	if err := f.spool.Warnings().Commit(t.Context(), "uplink", f.spool.Warnings().Last()); err != nil { // as a new follower begins
		t.Fatal(err)
	}
	stands := func() string {
		var out []string
		for _, w := range c.warnings() {
			out = append(out, fmt.Sprintf("%s:%s:%s:%s", w.ID, w.State, w.AckedBy, w.Gateway))
			if w.To != nil || w.Source != "uplink.box" || w.Happened.IsZero() && w.State != telemetry.Cleared {
				t.Errorf("%+v", w)
			}
		}
		return strings.Join(out, " ")
	}
	f.run()
	eventually(t, "what lasts is offered", func() bool { return stands() == "box-lasts:active::box" })
	shadow, drill := transition("shadow", 1, telemetry.Active, ""), transition("drill", 1, telemetry.Active, "")
	shadow.Shadow, drill.Exercise = true, true
	f.warn(shadow, drill, transition("pending", 1, telemetry.Pending, ""), transition("out", 1, telemetry.OutOfService, ""), transition("out", 2, telemetry.Cleared, ""))
	f.warn(transition("lasts", 3, telemetry.Shelved, telemetry.Shelve), transition("lasts", 4, telemetry.Cleared, ""))
	f.warn(transition("new", 1, telemetry.Active, ""))
	eventually(t, "steps are told", func() bool { return stands() == "box-new:active::box box-lasts:cleared::box" })

	c.set(func() { c.misfires = 1 }) // told twice
	f.warn(transition("new", 2, telemetry.Active, ""))
	eventually(t, "told", f.pushed)
	if w := c.warnings()[0]; w.N != 2 {
		t.Errorf("%s stands at %d, want 2", w.ID, w.N)
	}
	// The field has lost its log, and knows nothing of what it had raised.
	f.stop()
	f.dir, f.board = t.TempDir(), telemetry.NewBoard()
	f.warn(transition("newest", 1, telemetry.Active, ""))
	c.receiver.mu.Lock()
	c.receiver.guests["box"].heard = time.Time{}
	c.receiver.mu.Unlock()
	if err := errors.Join(f.spool.Close(), f.sender.Close()); err != nil {
		t.Fatal(err)
	}
	f.open(nil)
	f.warn(transition("newest", 1, telemetry.Active, ""))
	f.run()
	eventually(t, "what is over is ended", func() bool {
		return strings.HasPrefix(stands(), "box-newest:active::box ") && strings.Contains(stands(), "box-new:cleared")
	})
}

// TestWarningsGoFirst pushes a backlog at a rate at which it takes minutes; a warning is
// there at once.
func TestWarningsGoFirst(t *testing.T) {
	t.Parallel()
	c := newBase(t)
	f := newBox(t, "box", Config{URL: c.server.URL, MaxRate: 4 << 10})
	for range 40 {
		f.receive(1, 2000)
	}
	f.run()
	eventually(t, "readings are on their way", func() bool { return len(c.taken()) > 0 })
	begin := time.Now()
	f.warn(transition("flood", 1, telemetry.Active, ""))
	eventually(t, "the warning", func() bool { return len(c.warnings()) == 1 })
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("the warning took %s", took)
	}
	if f.pushed() {
		t.Fatal("there was no backlog")
	}
}

// TestRefusals: one clear answer for each bad request, one line at the field, and
// nothing is taken.
func TestRefusals(t *testing.T) {
	t.Parallel()
	c := newBase(t)
	p, err := newPress()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	head := `{"gateway":"box","epoch":"e","after":{"seq":0},"to":{"seq":1}}` + "\n"
	hello := `{"gateway":"box","epoch":"e"}`
	if status, text := c.post("hello", nil, []byte(hello)); status != http.StatusOK {
		t.Fatal(status, text)
	}
	for _, one := range []struct {
		what, path string
		header     map[string]string
		body       []byte
		status     int
		reason     string
	}{
		{"another path", "else", nil, nil, 404, reasonPath},
		{"another version", "hello", map[string]string{versionHeader: "2"}, []byte(hello), 400, reasonVersion},
		{"no JSON", "hello", nil, []byte("x"), 400, reasonBody},
		{"no name", "hello", nil, []byte(`{"gateway":"a/b","epoch":"e"}`), 400, reasonName},
		{"no epoch", "hello", nil, []byte(`{"gateway":"box"}`), 400, reasonName},
		{"itself", "hello", nil, []byte(`{"gateway":"centre","epoch":"e"}`), 403, reasonName},
		{"two gateways", "hello", nil, []byte(`{"gateway":"box","epoch":"other"}`), 409, reasonTwo},
		{"not packed", "readings", map[string]string{"Content-Encoding": "gzip"}, []byte(head), 415, reasonBody},
		{"not zstd", "readings", nil, []byte(head), 400, reasonBody},
		{"too large", "readings", nil, make([]byte, maxBody+1), 413, reasonTooLarge},
		{"too large unpacked", "readings", nil, p.pack(make([]byte, 50<<20)), 413, reasonTooLarge},
		{"no head", "readings", nil, p.pack([]byte("x")), 400, reasonBody},
		{"no frames", "readings", nil, p.pack([]byte(head + "k n=1 1\n")), 400, reasonBody},
		{"no numbers", "readings", nil, p.pack([]byte(head + "#1 x 1\n")), 400, reasonBody},
		{"elsewhere", "readings", nil, p.pack([]byte(strings.Replace(head, `{"seq":0}`, `{"seq":7}`, 1))), 409, reasonPlace},
	} {
		status, text := c.post(one.path, one.header, one.body)
		if status != one.status || !strings.Contains(text, `"reason":"`+one.reason+`"`) {
			t.Errorf("%s: %d %s", one.what, status, text)
		}
	}
	c.set(func() {
		c.account = &telemetry.Account{Name: "other", Role: telemetry.RoleGateway, Devices: []string{"*"}, Life: t.Context()}
	})
	if status, text := c.post("hello", nil, []byte(hello)); status != http.StatusForbidden {
		t.Error("another's account:", status, text)
	}
	if got := c.taken(); len(got) > 0 {
		t.Error("taken:", got)
	}
	// A clock that is off is told once.
	c.set(func() { c.account = nil })
	for range 2 {
		if status, text := c.post("hello", nil, []byte(`{"gateway":"box","epoch":"e","now":"2025-11-22T01:00:00Z"}`)); status != http.StatusOK {
			t.Fatal(status, text)
		}
	}
	if n := c.said.count("the clock of a gateway is off"); n != 1 {
		t.Errorf("a clock that is off is told %d times", n)
	}
	// A line that is none costs no other.
	body := head + "#1 0 1\nk,device=d n=1 1763800000000000000\nrubbish\nk,device=d n=2 1763800000000000001\n"
	if status, text := c.post("readings", nil, p.pack([]byte(body))); status != http.StatusOK {
		t.Fatal(status, text)
	}
	if err := inOrder(c.taken(), 2); err != nil {
		t.Error(err)
	}
	if status, text := c.post("warnings", nil, p.pack([]byte(head+"rubbish\n"+`{"warning":{"id":"A"}}`+"\n"))); status != http.StatusOK {
		t.Error(status, text)
	}
	eventually(t, "letters", func() bool { return strings.Join(c.letters(), " ") == "bad_line bad_warning bad_warning" })
}

// TestTold: the field says once why the centre takes nothing, and that it does again.
func TestTold(t *testing.T) {
	t.Parallel()
	c := newBase(t)
	c.account = &telemetry.Account{Name: "other", Role: telemetry.RoleGateway, Devices: []string{"*"}, Life: t.Context()}
	f := newBox(t, "box", Config{URL: c.server.URL, Heartbeat: telemetry.Duration(time.Second)})
	f.run()
	eventually(t, "refused twice", func() bool {
		return testutil.ToFloat64(f.sender.metrics.failures.WithLabelValues(reasonName)) >= 2
	})
	if up, _, why := f.sender.Connected(); up || !strings.Contains(why, "is that of the gateway of its own name") {
		t.Errorf("connected %v, because %q", up, why)
	}
	c.set(func() { c.account = nil })
	eventually(t, "taken", func() bool { up, centre, _ := f.sender.Connected(); return up && centre == "centre" })
	if f.said.count("level=WARN") != 1 || f.said.count("the centre answers again") != 1 || c.said.count("level=WARN") != 1 {
		t.Errorf("field: %s\ncentre: %s", f.said.b.String(), c.said.b.String())
	}
	if guests := c.receiver.Guests(); len(guests) != 1 || guests[0].Version != "1.2.3" {
		t.Errorf("%+v", guests)
	}
}

func TestPrefix(t *testing.T) {
	for name, want := range map[string]string{"kim-long-box": "kim-long-box", "a": "a", "Box.1": "box-1-", "Huế": "hu-", "cổng": "c-ng-", strings.Repeat("a", 40): strings.Repeat("a", 24) + "-"} {
		got := prefix(name)
		if got != want && (!strings.HasPrefix(got, want) || len(got) != len(want)+6) {
			t.Errorf("%s begins %s, want %s", name, got, want)
		}
	}
	if prefix("box.1") == prefix("box-1") {
		t.Error("two gateways share a prefix")
	}
}

func TestConfig(t *testing.T) {
	var r Rate
	if err := r.UnmarshalText([]byte("64KiB/s")); err != nil || r != 64<<10 || r.String() != "64KiB/s" {
		t.Error(r, err)
	}
	if err := r.UnmarshalText([]byte("fast")); err == nil {
		t.Error("a rate is fast")
	}
	for want, c := range map[string]Config{
		"":                                   {URL: "https://a:1", Secret: "x", MaxRate: 1 << 10, Heartbeat: telemetry.Duration(time.Minute)},
		"url: url \"mqtt://a\" is not like":  {URL: "mqtt://a"},
		"max_rate: max_rate means nothing":   {MaxRate: 1 << 20, Accept: true},
		"max_rate: max_rate 1B/s is below":   {URL: "http://a", MaxRate: 1},
		"heartbeat: heartbeat 1ms is not in": {URL: "http://a", Heartbeat: telemetry.Duration(time.Millisecond)},
		"account: account \"a b\" is not":    {URL: "http://a", Account: "a b"},
		"ca: read the authorities":           {URL: "http://a", CA: "/nowhere"},
	} {
		faults := c.Validate()
		if want == "" && len(faults) > 0 || want != "" && (len(faults) != 1 || !strings.HasPrefix(faults[0].Path+": "+faults[0].Want, want)) {
			t.Errorf("%+v: %v, want %q", c, faults, want)
		}
	}
	clear := Config{URL: "http://10.0.0.1:8080"}
	if !clear.InClear() {
		t.Error("http beyond loopback is in clear")
	}
}
