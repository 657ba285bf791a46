package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"haidang/gateway/influx"
	"haidang/gateway/ioc"
	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// Bounds of one verification: beyond the first it asks for a shorter period.
const (
	maxVerified   = 5_000_000 // readings
	maxDifferent  = 1000      // devices and kinds that are told
	differentShow = 5         // times of one of them
)

// verifyPath is where the control socket answers with a verification.
const verifyPath = "/verify"

// A verification compares what the log has with what InfluxDB has.
type verification struct {
	From time.Time `json:"from"` // own time of the first reading, and of the last
	To   time.Time `json:"to"`

	Logged   int `json:"logged"`    // readings of the log in the period, each series and time once
	Again    int `json:"again"`     // more readings of a series and time that it has already: corrections, the last wins
	Pending  int `json:"pending"`   // readings that InfluxDB is still to get
	Stored   int `json:"stored"`    // of those logged
	Missing  int `json:"missing"`   // logged, accepted, and not there
	SetAside int `json:"set_aside"` // not there since InfluxDB refused them: dead letters
	Extra    int `json:"extra"`     // there between the first and the last of the log, and not in the log

	WarningsLogged  int `json:"warnings_logged"`  // transitions in the period
	WarningsPending int `json:"warnings_pending"` // that InfluxDB is still to get
	WarningsMissing int `json:"warnings_missing"`

	Different []difference `json:"different,omitempty"`
}

// A difference is of one device and kind.
type difference struct {
	Device  string      `json:"device"`
	Kind    string      `json:"kind"`
	Logged  int         `json:"logged"`
	Missing int         `json:"missing"`
	Extra   int         `json:"extra"`
	At      []time.Time `json:"at"` // of the first few
}

// well reports whether everything is there.
func (v *verification) well() bool { return v.Missing == 0 && v.Extra == 0 && v.WarningsMissing == 0 }

// errMuch asks for less.
var errMuch = fmt.Errorf("the period has more than %d readings: choose a shorter one with --from and --to", maxVerified)

// A deviceKind is a device and kind.
type deviceKind struct{ device, kind string }

// A instant is a reading's place in its series: its time and its extra tags.
type instant struct {
	at   int64  // Unix ns
	tags uint64 // hash of the extra tags
	seq  uint64 // of the frame
}

func (m instant) compare(o instant) int {
	return cmp.Or(cmp.Compare(m.at, o.at), cmp.Compare(m.tags, o.tags))
}

// A verifier holds what the log has.
type verifier struct {
	log    *spool.Spool
	store  *influx.Store
	within func(time.Time) bool

	logged map[deviceKind][]instant
	refuse map[uint64]int // records that InfluxDB refused, by frame
	count  int
	out    verification
}

// verify reconciles log and store. Readings from from on and before to, by their
// own time; zero times bound nothing.
func verify(ctx context.Context, log *spool.Spool, store *influx.Store, from, to time.Time) (*verification, error) {
	v := &verifier{
		log: log, store: store, logged: map[deviceKind][]instant{}, refuse: map[uint64]int{},
		within: func(at time.Time) bool { return !at.Before(from) && (to.IsZero() || at.Before(to)) },
	}
	if err := v.readLog(ctx); err != nil {
		return nil, err
	}
	if err := v.readLetters(ctx); err != nil {
		return nil, err
	}
	for at, list := range v.logged {
		if err := v.compare(ctx, at, list); err != nil {
			return nil, err
		}
	}
	if err := v.warnings(ctx); err != nil {
		return nil, err
	}
	slices.SortFunc(v.out.Different, func(a, b difference) int {
		return cmp.Or(b.Missing-a.Missing, b.Extra-a.Extra, strings.Compare(a.Device, b.Device), strings.Compare(a.Kind, b.Kind))
	})
	return &v.out, nil
}

// through calls f for each frame that a log has now.
func through[T any](ctx context.Context, log *spool.Log[T], f func(*spool.Frame[T]) error) error {
	last := log.Last()
	if last == 0 {
		return nil
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var failed error
	done := false
	err := log.Follow(ctx, spool.FollowOptions{}, func(_ context.Context, b *spool.Batch[T]) error {
		for i := range b.Frames {
			if done = b.Frames[i].Seq >= last; b.Frames[i].Seq <= last && failed == nil {
				failed = f(&b.Frames[i])
			}
		}
		if done || failed != nil {
			stop()
		}
		return nil
	})
	if err == nil && failed == nil && !done {
		err = ctx.Err()
	}
	return errors.Join(failed, err)
}

func (v *verifier) readLog(ctx context.Context) error {
	accepted := v.log.Readings().Position(followStore)
	return through(ctx, v.log.Readings(), func(f *spool.Frame[telemetry.Reading]) error {
		records, err := f.Records()
		if damaged := (*spool.DamagedFrame)(nil); errors.As(err, &damaged) {
			return nil // a dead letter already
		}
		if err != nil {
			return err
		}
		for i := range records {
			r := &records[i]
			if r.Control() || !v.within(r.Time) {
				continue
			}
			if f.Seq > accepted {
				v.out.Pending++
				continue
			}
			if v.count++; v.count > maxVerified {
				return errMuch
			}
			at := deviceKind{r.Device, r.Kind}
			v.logged[at] = append(v.logged[at], instant{r.Time.UnixNano(), hashTags(r.Tags), f.Seq})
		}
		return nil
	})
}

func hashTags(tags []telemetry.Tag) uint64 {
	if len(tags) == 0 {
		return 0
	}
	sum := fnv.New64a()
	for _, tag := range tags {
		fmt.Fprintf(sum, "%q=%q ", tag.Key, tag.Value)
	}
	return sum.Sum64()
}

// readLetters counts what InfluxDB refused, by frame: the place of such a letter
// is "readings 17".
func (v *verifier) readLetters(ctx context.Context) error {
	return through(ctx, v.log.DeadLetters(), func(f *spool.Frame[telemetry.DeadLetter]) error {
		letters, err := f.Records()
		if err != nil {
			return nil // a damaged letter tells nothing
		}
		for i := range letters {
			text, ok := strings.CutPrefix(letters[i].Place, "readings ")
			if seq, err := strconv.ParseUint(text, 10, 64); ok && err == nil && letters[i].Source == followStore {
				v.refuse[seq]++
			}
		}
		return nil
	})
}

// compare compares one device and kind with what InfluxDB has of it between the
// first and the last reading of the log.
func (v *verifier) compare(ctx context.Context, at deviceKind, list []instant) error {
	slices.SortStableFunc(list, instant.compare)
	n := len(list)
	list = slices.CompactFunc(list, func(a, b instant) bool { return a.compare(b) == 0 })
	v.out.Again += n - len(list)
	v.out.Logged += len(list)
	first, last := time.Unix(0, list[0].at).UTC(), time.Unix(0, list[len(list)-1].at).UTC()
	if v.out.From.IsZero() || first.Before(v.out.From) {
		v.out.From = first
	}
	if last.After(v.out.To) {
		v.out.To = last
	}
	stored, err := v.stored(ctx, at, list[0].at, list[len(list)-1].at)
	if err != nil {
		return err
	}
	d := difference{Device: at.device, Kind: at.kind, Logged: len(list)}
	differs := func(m instant) {
		if len(d.At) < differentShow {
			d.At = append(d.At, time.Unix(0, m.at).UTC())
		}
	}
	i, j := 0, 0
	for i < len(list) || j < len(stored) {
		order := 0
		switch {
		case i == len(list):
			order = 1
		case j == len(stored):
			order = -1
		default:
			order = list[i].compare(stored[j])
		}
		switch {
		case order == 0:
			v.out.Stored++
			i, j = i+1, j+1
		case order < 0 && v.refuse[list[i].seq] > 0:
			v.refuse[list[i].seq]--
			v.out.SetAside++
			i++
		case order < 0:
			d.Missing++
			differs(list[i])
			i++
		default:
			d.Extra++
			differs(stored[j])
			j++
		}
	}
	v.out.Missing += d.Missing
	v.out.Extra += d.Extra
	if d.Missing+d.Extra > 0 && len(v.out.Different) < maxDifferent {
		v.out.Different = append(v.out.Different, d)
	}
	return nil
}

// stored asks InfluxDB for a device's points of a kind, both ends included.
func (v *verifier) stored(ctx context.Context, at deviceKind, from, to int64) ([]instant, error) {
	var out []instant
	query := fmt.Sprintf("SELECT quality FROM %s WHERE device = %s AND time >= %d AND time <= %d GROUP BY *", quoteName(at.kind), quoteText(at.device), from, to)
	err := v.store.Each(ctx, query, func(s *influx.Series) error {
		var tags []telemetry.Tag
		for key, value := range s.Tags {
			if key != "device" && key != "site" && value != "" {
				tags = append(tags, telemetry.Tag{Key: key, Value: value})
			}
		}
		slices.SortFunc(tags, func(a, b telemetry.Tag) int { return strings.Compare(a.Key, b.Key) })
		hash := hashTags(tags)
		for i := range s.Values {
			if out = append(out, instant{at: s.Time(i).UnixNano(), tags: hash}); len(out) > 2*maxVerified {
				return errMuch
			}
		}
		return nil
	})
	slices.SortStableFunc(out, instant.compare)
	return out, err
}

// quoteName and quoteText quote for InfluxQL.
func quoteName(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
func quoteText(s string) string {
	return `'` + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + `'`
}

// warnings looks for each transition of the warnings log in InfluxDB, where its
// time is At plus n nanoseconds; see ioc.Line.
func (v *verifier) warnings(ctx context.Context) error {
	log := v.log.Warnings()
	accepted := log.Position(followStore)
	logged := map[int64]int{}
	var least, most int64
	err := through(ctx, log, func(f *spool.Frame[telemetry.Transition]) error {
		records, err := f.Records()
		if damaged := (*spool.DamagedFrame)(nil); errors.As(err, &damaged) {
			return nil // a dead letter already
		}
		if err != nil {
			return err
		}
		for i := range records {
			t := &records[i]
			if !v.within(t.At) || !isOfWarning(t) {
				continue
			}
			if f.Seq > accepted {
				v.out.WarningsPending++
				continue
			}
			if v.out.WarningsLogged++; v.out.WarningsLogged > maxVerified {
				return errMuch
			}
			at := t.At.UnixNano() + int64(t.N)
			if logged[at]++; least == 0 || at < least {
				least = at
			}
			most = max(most, at)
		}
		return nil
	})
	if err != nil || len(logged) == 0 {
		return err
	}
	err = v.store.Each(ctx, fmt.Sprintf("SELECT n FROM %s WHERE time >= %d AND time <= %d GROUP BY *", ioc.Measurement, least, most), func(s *influx.Series) error {
		for i := range s.Values {
			if at := s.Time(i).UnixNano(); logged[at] > 0 {
				logged[at]--
			}
		}
		return nil
	})
	for _, n := range logged {
		v.out.WarningsMissing += n
	}
	return err
}

// serveVerify answers at the control socket.
func (g *instance) serveVerify(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // it may take long; a server that cannot has none
	from, err1 := readTime(r.URL.Query().Get("from"))
	to, err2 := readTime(r.URL.Query().Get("to"))
	var v *verification
	err, status := errors.Join(err1, err2), http.StatusBadRequest
	if g.machine != nil {
		err = errors.New("verify compares one log with its store; machines with roles have several partitions and positions of other machines: ask InfluxDB, and the lag in haidang health")
	}
	if err == nil {
		status = http.StatusServiceUnavailable
		v, err = verify(r.Context(), g.spool, g.store, from, to)
	}
	if err != nil {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"detail": err.Error()}) // who asked may be gone
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the same
}

// readTime reads a bound of the period; "" is none.
func readTime(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return at, fmt.Errorf("time %q is not like 2026-11-22T07:00:00+07:00", text)
	}
	return at, nil
}
