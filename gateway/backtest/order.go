package backtest

import (
	"container/heap"
	"iter"
	"time"

	"haidang/gateway/telemetry"
)

// Lookahead is how many readings Sorted holds back: a recording may be out of
// order by so many records.
const Lookahead = 100_000

func received(r *telemetry.Reading) time.Time { return r.Time.Add(r.Delay) }

// Sorted brings readings into the order of their receipt, over at most
// Lookahead readings. Those of one instant keep their order.
func Sorted(readings iter.Seq2[telemetry.Reading, error]) iter.Seq2[telemetry.Reading, error] {
	return func(yield func(telemetry.Reading, error) bool) {
		var waiting queue
		n := 0
		for r, err := range readings {
			if err != nil {
				yield(r, err)
				return
			}
			heap.Push(&waiting, entry{r, n})
			n++
			if len(waiting) > Lookahead && !yield(heap.Pop(&waiting).(entry).reading, nil) {
				return
			}
		}
		for len(waiting) > 0 {
			if !yield(heap.Pop(&waiting).(entry).reading, nil) {
				return
			}
		}
	}
}

// Merged joins sequences that are each in the order of receipt. At one instant
// the earlier sequence goes first.
func Merged(sources ...iter.Seq2[telemetry.Reading, error]) iter.Seq2[telemetry.Reading, error] {
	if len(sources) == 1 {
		return sources[0]
	}
	return func(yield func(telemetry.Reading, error) bool) {
		var waiting queue
		next := make([]func() (telemetry.Reading, error, bool), len(sources))
		pull := func(i int) error {
			r, err, ok := next[i]()
			if ok && err == nil {
				heap.Push(&waiting, entry{r, i})
			}
			return err
		}
		for i, source := range sources {
			var stop func()
			next[i], stop = iter.Pull2(source)
			defer stop()
			if err := pull(i); err != nil {
				yield(telemetry.Reading{}, err)
				return
			}
		}
		for len(waiting) > 0 {
			first := heap.Pop(&waiting).(entry)
			if !yield(first.reading, nil) {
				return
			}
			if err := pull(first.rank); err != nil {
				yield(telemetry.Reading{}, err)
				return
			}
		}
	}
}

// An entry is a reading with its rank among those of one instant.
type entry struct {
	reading telemetry.Reading
	rank    int
}

type queue []entry

func (q queue) Len() int { return len(q) }

func (q queue) Less(i, j int) bool {
	a, b := received(&q[i].reading), received(&q[j].reading)
	if !a.Equal(b) {
		return a.Before(b)
	}
	return q[i].rank < q[j].rank
}

func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

func (q *queue) Push(x any) { *q = append(*q, x.(entry)) }

func (q *queue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = entry{}
	*q = (*q)[:last]
	return e
}
