package influx

import (
	"cmp"
	"container/heap"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

const (
	// sliceRows is how many rows a slice of time should hold; at giveUp times
	// that number a slice is given up for a shorter one.
	sliceRows = 50_000
	giveUp    = 4
	// readLate bounds the readings that were received after the slice in which
	// their own time lies, and wait for theirs.
	readLate = 500_000

	firstSlice = 24 * time.Hour
	widest     = 90 * 24 * time.Hour
	shortest   = time.Second
)

// A Range says which stored readings are wanted.
type Range struct {
	From, To time.Time // by the readings' own time: From <= time < To
	Kinds    []string  // nil: all
	Devices  []string  // nil: all
}

// Readings returns the stored readings of a range in the order in which they
// were received (time plus delay_s), over all kinds and devices, with their
// qualities, words and extra tags. What was received at To or later is left
// out. Memory is bounded: the store is asked for a slice of time after the
// other, whose length follows how many rows there are. The sequence ends with
// the first error.
func (s *Store) Readings(ctx context.Context, r Range) iter.Seq2[telemetry.Reading, error] {
	return func(yield func(telemetry.Reading, error) bool) {
		err := s.readings(ctx, r, sliceRows, func(r telemetry.Reading) bool { return yield(r, nil) })
		if err != nil && !errors.Is(err, errEnough) {
			yield(telemetry.Reading{}, err)
		}
	}
}

var (
	errEnough  = errors.New("the reader wants no more")
	errTooMany = errors.New("too many rows in a slice")
)

// readings asks for slices of about so many rows.
func (s *Store) readings(ctx context.Context, r Range, rows int, yield func(telemetry.Reading) bool) error {
	kinds := r.Kinds
	if kinds == nil {
		var err error
		if kinds, err = s.kinds(ctx); err != nil {
			return err
		}
	}
	var waiting byReceipt
	width := firstSlice
	for at := r.From; at.Before(r.To); {
		end := at.Add(width)
		if end.After(r.To) {
			end = r.To
		}
		slice, err := s.slice(ctx, Range{at, end, kinds, r.Devices}, giveUp*rows)
		if errors.Is(err, errTooMany) && end.Sub(at) > shortest {
			width = max(end.Sub(at)/8, shortest)
			continue
		}
		if err != nil {
			return err
		}
		for _, reading := range slice {
			heap.Push(&waiting, reading)
		}
		for len(waiting) > 0 && received(&waiting[0]).Before(end) {
			if !yield(heap.Pop(&waiting).(telemetry.Reading)) {
				return errEnough
			}
		}
		if len(waiting) > readLate {
			return fmt.Errorf("read InfluxDB at %s: more than %d readings before %s were received later than that; ask for fewer devices", s.address, readLate, end.Format(time.RFC3339))
		}
		if len(slice) < rows/2 {
			width = min(2*width, widest)
		} else if len(slice) > rows {
			width = max(width/2, shortest)
		}
		at = end
	}
	return nil
}

// ownPrefix begins the names of what the gateway measures of itself: no readings.
const ownPrefix = "haidang_"

// kinds returns the measurements that are readings.
func (s *Store) kinds(ctx context.Context) ([]string, error) {
	list, err := s.Query(ctx, "SHOW MEASUREMENTS")
	if err != nil {
		return nil, err
	}
	var kinds []string
	for i := range list {
		for row := range list[i].Values {
			if name := list[i].Text(row, "name"); name != "" && name != "warning" && !strings.HasPrefix(name, ownPrefix) && name[0] != '_' {
				kinds = append(kinds, name)
			}
		}
	}
	slices.Sort(kinds)
	return kinds, nil
}

// slice returns the readings of a range, in no order; errTooMany when there are
// more than most and the range can be shorter.
func (s *Store) slice(ctx context.Context, r Range, most int) ([]telemetry.Reading, error) {
	var out []telemetry.Reading
	for _, kind := range r.Kinds {
		query := fmt.Sprintf("SELECT * FROM %s WHERE time >= %d AND time < %d%s GROUP BY *", quoteName(kind), r.From.UnixNano(), r.To.UnixNano(), ofDevices(r.Devices))
		err := s.Each(ctx, query, func(part *Series) error {
			if len(out)+len(part.Values) > most && r.To.Sub(r.From) > shortest {
				return errTooMany
			}
			var err error
			out, err = appendReadings(out, part)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func ofDevices(devices []string) string {
	if devices == nil {
		return ""
	}
	parts := make([]string, len(devices))
	for i, d := range devices {
		parts[i] = `"device" = ` + quoteWord(d)
	}
	if len(parts) == 0 {
		parts = []string{`"device" = ''`}
	}
	return " AND (" + strings.Join(parts, " OR ") + ")"
}

func quoteName(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

func quoteWord(s string) string {
	return `'` + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`).Replace(s) + `'`
}

// A field is what a column of a measurement is of a reading.
type field struct {
	column int
	role   role
	name   string // of the value
}

type role int

const (
	roleNumber role = iota
	roleWord
	roleQuality
	roleDelay
	roleValueQuality
)

// fields says what the columns are; see spool.AppendReading, which writes them.
func fields(columns []string) []field {
	var out []field
	for i, name := range columns {
		f := field{column: i, name: name}
		switch {
		case name == "time":
			continue
		case name == "quality":
			f.role = roleQuality
		case name == "delay_s":
			f.role = roleDelay
		case strings.HasSuffix(name, "_quality") && valueColumn(columns, strings.TrimSuffix(name, "_quality")) >= 0:
			f.role, f.name = roleValueQuality, strings.TrimSuffix(name, "_quality")
		case strings.HasSuffix(name, "_text") && name != "_text":
			f.role, f.name = roleWord, strings.TrimSuffix(name, "_text")
		}
		out = append(out, f)
	}
	// Qualities come after the values that they are of.
	slices.SortStableFunc(out, func(a, b field) int { return cmp.Compare(a.role, b.role) })
	return out
}

func valueColumn(columns []string, name string) int {
	return slices.IndexFunc(columns, func(c string) bool { return c == name || c == name+"_text" })
}

// appendReadings makes readings of the rows of a series.
func appendReadings(out []telemetry.Reading, part *Series) ([]telemetry.Reading, error) {
	base := telemetry.Reading{Kind: part.Name, Device: part.Tags["device"], Site: part.Tags["site"]}
	for key, value := range part.Tags {
		if key != "device" && key != "site" && value != "" {
			base.Tags = append(base.Tags, telemetry.Tag{Key: key, Value: value})
		}
	}
	slices.SortFunc(base.Tags, func(a, b telemetry.Tag) int { return cmp.Compare(a.Key, b.Key) })
	layout := fields(part.Columns)
	for row, cells := range part.Values {
		r := base
		r.Time = part.Time(row).UTC()
		r.Values = make([]telemetry.Value, 0, len(layout))
		for _, f := range layout {
			if err := f.read(&r, cells[f.column]); err != nil {
				return out, fmt.Errorf("measurement %q, field %q at %s: %w", part.Name, part.Columns[f.column], r.Time.Format(time.RFC3339Nano), err)
			}
		}
		if len(r.Values) > 0 {
			out = append(out, r)
		}
	}
	return out, nil
}

// read takes one cell into the reading.
func (f *field) read(r *telemetry.Reading, cell any) error {
	switch v := cell.(type) {
	case nil:
	case json.Number:
		number, err := v.Float64()
		if err != nil {
			return err
		}
		if f.role == roleDelay {
			r.Delay = time.Duration(math.Round(max(number, 0) * float64(time.Second)))
			return nil
		}
		r.Values = append(r.Values, telemetry.Value{Name: f.name, Number: number})
	case bool:
		value := telemetry.Value{Name: f.name}
		if v {
			value.Number = 1
		}
		r.Values = append(r.Values, value)
	case string:
		f.word(r, v)
	}
	return nil
}

func (f *field) word(r *telemetry.Reading, v string) {
	switch f.role {
	case roleQuality:
		if q, err := telemetry.ParseQuality(v); err == nil {
			r.Quality = q
		}
	case roleValueQuality:
		q, err := telemetry.ParseQuality(v)
		for i := range r.Values {
			if err == nil && r.Values[i].Name == f.name {
				r.Values[i].Quality = q
			}
		}
	default:
		if v != "" {
			r.Values = append(r.Values, telemetry.Value{Name: f.name, Text: v})
		}
	}
}

// received is when a stored reading was received.
func received(r *telemetry.Reading) time.Time { return r.Time.Add(r.Delay) }

// byReceipt is a heap of readings in the order of receipt; at one instant by
// kind and device, so that the order is always the same.
type byReceipt []telemetry.Reading

func (q byReceipt) Len() int { return len(q) }

func (q byReceipt) Less(i, j int) bool {
	a, b := &q[i], &q[j]
	return cmp.Or(received(a).Compare(received(b)), a.Time.Compare(b.Time), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Kind, b.Kind)) < 0
}

func (q byReceipt) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

func (q *byReceipt) Push(x any) { *q = append(*q, x.(telemetry.Reading)) }

func (q *byReceipt) Pop() any {
	last := len(*q) - 1
	r := (*q)[last]
	(*q)[last] = telemetry.Reading{}
	*q = (*q)[:last]
	return r
}
