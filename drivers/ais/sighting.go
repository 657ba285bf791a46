package ais

import "encoding/binary"

// mergeWindow is how long the same payload counts as one message. What two
// receivers hear of one transmission reaches us within seconds; a station sends
// the same payload again minutes later at the soonest (reports carry the second
// of UTC; texts and facts are repeated every few minutes).
const mergeWindow = 10_000 // ms

// Bounds of the payloads that are remembered: 32,768, half a MiB.
const (
	sightingBits = 13
	sightingWays = 4
)

// A sighting is one payload that was heard.
type sighting struct {
	sum uint64
	at  int64 // Unix ms
}

// sightings remembers the payloads of the last seconds. It is a table of fixed
// size: under a flood the oldest of a row is forgotten, so that a duplicate may
// pass; nothing is ever taken for a duplicate that is none.
type sightings [1 << sightingBits][sightingWays]sighting

// seen reports whether the payload was heard within mergeWindow, and remembers
// it when it was not.
func (s *sightings) seen(sum uint64, at int64) bool {
	row := &s[sum>>(64-sightingBits)]
	oldest := 0
	for i := range row {
		if e := &row[i]; e.sum == sum {
			if apart := at - e.at; apart <= mergeWindow && apart >= -mergeWindow {
				return true
			}
			oldest = i
			break
		}
		if row[i].at < row[oldest].at {
			oldest = i
		}
	}
	row[oldest] = sighting{sum, at}
	return false
}

// sum hashes the payload without its repeat indicator (bits 6 and 7), which
// repeater stations count up. It is the same in every run, so that a recording
// gives the same readings each time; never 0.
func (b *bits) sum() uint64 {
	const k0, k1 = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93
	words := (b.n + 63) / 64
	h := uint64(b.n) * k1
	for i := range words {
		w := binary.BigEndian.Uint64(b.data[8*i:])
		if i == 0 {
			w &^= 3 << 56
		}
		if rest := b.n - 64*i; rest < 64 {
			w &= ^uint64(0) << (64 - rest)
		}
		h = (h ^ w) * k0
		h ^= h >> 32
		h *= k1
		h ^= h >> 29
	}
	return h | 1
}
