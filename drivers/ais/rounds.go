package ais

import (
	"bytes"
	"hash/maphash"
	"sync"
	"time"
)

const (
	// maxRounds is how often one sentence is forwarded within roundTime. Several
	// stations of one stream hear a transmission, and each of their sentences
	// passes; what goes in a circle of programs comes again and again.
	maxRounds = 16
	roundTime = 10 * time.Second

	maxRemembered = 4096 // sentences; one that is forgotten only passes more often
)

// rounds tells sentences that go in a circle: two receivers, or two gateways,
// that forward to each other would send them for ever.
type rounds struct {
	seed maphash.Seed

	mu     sync.Mutex
	seen   [maxRemembered]round
	firsts [256]uint64 // newest first part by the character of its sequence number
	warned time.Time
}

type round struct {
	sum   uint64
	since time.Time
	count int
}

func newRounds() *rounds { return &rounds{seed: maphash.MakeSeed()} }

// again notes a sentence, and reports whether it was there too often. news is
// true where that is to be told: once an hour.
func (r *rounds) again(sentence []byte, now time.Time) (looped, news bool) {
	sum := maphash.Bytes(r.seed, sentence)
	r.mu.Lock()
	defer r.mu.Unlock()
	if part, sequence, several := partOf(sentence); several {
		if part == '1' {
			r.firsts[sequence] = sum
		} else {
			sum ^= r.firsts[sequence] // second parts of many vessels are alike
		}
	}
	at := &r.seen[sum%maxRemembered]
	if at.sum != sum || now.Sub(at.since) >= roundTime || now.Before(at.since) {
		*at = round{sum: sum, since: now}
	}
	if at.count++; at.count <= maxRounds {
		return false, false
	}
	at.since = now // as long as it goes round
	if news = r.warned.IsZero() || now.Sub(r.warned) >= time.Hour; news {
		r.warned = now
	}
	return true, news
}

// partOf returns which part of a message of several a sentence is, and the
// character of its sequence number: !AIVDM,2,1,3,...
func partOf(sentence []byte) (part, sequence byte, several bool) {
	fields := bytes.SplitN(sentence, []byte{','}, 5)
	if len(fields) < 5 || len(fields[2]) != 1 || string(fields[1]) == "1" {
		return 0, 0, false
	}
	if len(fields[3]) > 0 {
		sequence = fields[3][0]
	}
	return fields[2][0], sequence, true
}
