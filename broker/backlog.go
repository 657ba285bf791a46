package broker

import (
	"cmp"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// maxLosers is how many accounts have a count of their own; the others share one.
const maxLosers = 1000

// otherAccounts is what those that share a count are called, anyone the account of
// everybody while there are none; neither is the name of an account.
const (
	otherAccounts = "*"
	anyone        = "(anyone)"
)

// losses count what subscribers did not get, by account, since the start.
type losses struct {
	mu     sync.Mutex
	byName map[string]*loss
	counts *prometheus.CounterVec
}

type loss struct {
	dropped uint64
	counter prometheus.Counter
}

func (l *losses) count(account string) {
	if account == "" {
		account = anyone
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	own := l.byName[account]
	if own == nil && len(l.byName) >= maxLosers {
		account = otherAccounts
		own = l.byName[account]
	}
	if own == nil {
		own = &loss{counter: l.counts.WithLabelValues(account)}
		if l.byName == nil {
			l.byName = map[string]*loss{}
		}
		l.byName[account] = own
	}
	own.dropped++
	own.counter.Inc()
}

// A Backlog is what the subscribers of an account are owed, and what they did not
// get.
type Backlog struct {
	Account  string `json:"account"`  // (anyone) while there are no accounts; * for many together
	Messages int    `json:"messages"` // that wait or are not acknowledged, in all sessions
	Bytes    int64  `json:"bytes"`    // of memory
	Away     int    `json:"away"`     // sessions with messages whose client is not connected
	Dropped  uint64 `json:"dropped"`  // messages that did not fit, since the start
}

// Backlogs returns the accounts that have a backlog or have lost messages, those
// with the greatest losses first.
func (b *Broker) Backlogs() []Backlog {
	byName := map[string]*Backlog{}
	of := func(account string) *Backlog {
		if account == "" {
			account = anyone
		}
		if byName[account] == nil {
			byName[account] = &Backlog{Account: account}
		}
		return byName[account]
	}
	for _, s := range b.sessions.all() {
		messages, bytes, away := s.queue.backlog()
		if messages == 0 {
			continue
		}
		own := of(s.account)
		own.Messages += messages
		own.Bytes += bytes
		if away {
			own.Away++
		}
	}
	b.losses.mu.Lock()
	for account, l := range b.losses.byName {
		of(account).Dropped = l.dropped
	}
	b.losses.mu.Unlock()
	list := make([]Backlog, 0, len(byName))
	for _, own := range byName {
		list = append(list, *own)
	}
	slices.SortFunc(list, func(x, y Backlog) int {
		return cmp.Or(cmp.Compare(y.Dropped, x.Dropped), cmp.Compare(y.Messages, x.Messages), cmp.Compare(x.Account, y.Account))
	})
	return list
}
