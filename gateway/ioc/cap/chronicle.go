package cap

import (
	"fmt"
	"sort"
	"sync"
	"time"

	"haidang/gateway/telemetry"
)

// RefreshEvery is after how long a message of a warning that lasts is sent
// again, and Lasts is how long a message holds. They are not configurable:
// identifiers and references follow from them.
const (
	RefreshEvery = 12 * time.Hour
	Lasts        = 24 * time.Hour
)

const (
	keepEnded = 1000 // incidents that are over and whose messages can still be read
	keepSteps = 1000 // of one chain; of those that a rule lets come and go for ever the oldest go
)

// A step is a transition that says something about the danger: one message.
type step struct {
	typ     string
	warning telemetry.Warning
}

// An incident is the chain of messages of one warning since its last Alert.
type incident struct {
	n      int // of the newest transition that was seen
	steps  []step
	latest telemetry.Severity
	height telemetry.Severity // the gravest it was
}

func (i *incident) lasts() bool {
	return len(i.steps) > 0 && i.steps[len(i.steps)-1].typ != TypeCancel
}

// IsOver reports whether a warning says no more that there is a danger: it is
// cleared, its device or rule is out of service, or an operator says that there
// was nothing.
func IsOver(w *telemetry.Warning) bool {
	switch w.State {
	case telemetry.Cleared, telemetry.Returned, telemetry.OutOfService:
		return true
	}
	return w.FalseAlarm
}

// apply adds a transition. It reports whether it is a message.
func (i *incident) apply(w *telemetry.Warning) bool {
	if w.N <= i.n || w.State == telemetry.Pending || w.Shadow {
		return false
	}
	i.n = w.N
	over := IsOver(w)
	switch {
	case over && !i.lasts():
		return false
	case over:
		i.steps = append(i.steps, step{TypeCancel, *w})
	case !i.lasts():
		i.steps = []step{{TypeAlert, *w}}
		i.height = w.Severity
	case w.Severity == i.latest:
		return false
	default:
		i.steps = append(i.steps, step{TypeUpdate, *w})
	}
	i.latest = w.Severity
	i.height = max(i.height, w.Severity)
	if len(i.steps) > keepSteps {
		i.steps = append([]step(nil), i.steps[1:]...)
		i.steps[0].typ = TypeAlert
	}
	return true
}

// A Chronicle is the fold of the warnings log into chains of messages. It is
// safe for concurrent use.
type Chronicle struct {
	mu        sync.Mutex
	incidents map[string]*incident
	ended     []string // ids in the order of their end
	changes   uint64
}

// NewChronicle returns an empty chronicle.
func NewChronicle() *Chronicle { return &Chronicle{incidents: map[string]*incident{}} }

// Apply puts a transition of the log into the chronicle, in the log's order;
// one that it has already changes nothing.
func (c *Chronicle) Apply(w telemetry.Warning) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.incidents[w.ID]
	if i == nil {
		i = &incident{}
	}
	lasted := i.lasts()
	if !i.apply(&w) {
		return
	}
	c.incidents[w.ID] = i
	c.changes++
	if lasted && !i.lasts() {
		c.ended = append(c.ended, w.ID)
		c.forget()
	}
}

// forget drops the incidents that were over first.
func (c *Chronicle) forget() {
	for len(c.ended) > keepEnded {
		if i := c.incidents[c.ended[0]]; i != nil && !i.lasts() {
			delete(c.incidents, c.ended[0])
		}
		c.ended = c.ended[1:]
	}
}

// A Bulletin is one message of an incident with all that it is written from.
type Bulletin struct {
	Identifier string
	Sent       time.Time
	Type       string
	Warning    telemetry.Warning  // as it stood at the step
	Height     telemetry.Severity // the gravest it was so far
	Refresh    int                // 0: the step itself, else the i-th time that it is said again

	before    *telemetry.Warning // the step before; nil for the first
	refers    []reference        // earlier messages
	incidents string
}

type reference struct {
	identifier string
	sent       time.Time
}

// identifierOf names the message of transition n, or its i-th refresh.
func identifierOf(w *telemetry.Warning, refresh int) string {
	if refresh == 0 {
		return fmt.Sprintf("%s.%d", w.ID, w.N)
	}
	return fmt.Sprintf("%s.%d.r%d", w.ID, w.N, refresh)
}

// bulletins returns the messages of the chain that are due by now, the oldest
// first.
func (i *incident) bulletins(now time.Time) []Bulletin {
	var out []Bulletin
	var refers []reference
	var height telemetry.Severity
	for k := range i.steps {
		s := &i.steps[k]
		height = max(height, s.warning.Severity)
		end := now
		if k+1 < len(i.steps) {
			end = i.steps[k+1].warning.At
		}
		for r := 0; ; r++ {
			sent := s.warning.At.Add(time.Duration(r) * RefreshEvery)
			if r > 0 && (s.typ == TypeCancel || !sent.Before(end)) {
				break
			}
			b := Bulletin{
				Identifier: identifierOf(&s.warning, r), Sent: sent, Type: s.typ, Warning: s.warning, Height: height, Refresh: r,
				refers: refers[:len(refers):len(refers)], incidents: s.warning.ID,
			}
			if r > 0 {
				b.Type = TypeUpdate
			}
			if k > 0 {
				b.before = &i.steps[k-1].warning
			}
			out = append(out, b)
			refers = append(refers, reference{b.Identifier, sent})
		}
	}
	return out
}

// Of returns the message that a transition is, and false when it is none. The
// transition need not be in the chronicle yet, those before it are.
func (c *Chronicle) Of(w telemetry.Warning) (Bulletin, bool) {
	c.mu.Lock()
	chain := incident{}
	if i := c.incidents[w.ID]; i != nil {
		chain = *i
		chain.steps = append([]step(nil), i.steps...)
	}
	c.mu.Unlock()
	if w.N > chain.n {
		chain.apply(&w)
	}
	for _, b := range chain.bulletins(w.At) {
		if b.Warning.N == w.N && b.Refresh == 0 {
			return b, true
		}
	}
	return Bulletin{}, false
}

// Now returns a transition as it stands: the message that it is, or else the
// words of one, with those before it as its earlier ones.
func (c *Chronicle) Now(w telemetry.Warning) Bulletin {
	if b, is := c.Of(w); is {
		return b
	}
	b := Bulletin{Identifier: identifierOf(&w, 0), Sent: w.At, Type: TypeAlert, Warning: w, Height: w.Severity, incidents: w.ID}
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := c.incidents[w.ID]; i != nil {
		for _, earlier := range i.bulletins(w.At) {
			b.refers = append(b.refers, reference{earlier.Identifier, earlier.Sent})
			b.Type, b.before = TypeUpdate, &earlier.Warning
		}
	}
	if IsOver(&w) {
		b.Type = TypeCancel
	}
	return b
}

// Last returns the newest message of a warning, and false when it has none.
func (c *Chronicle) Last(id string, now time.Time) (Bulletin, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := c.incidents[id]; i != nil {
		if chain := i.bulletins(now); len(chain) > 0 {
			return chain[len(chain)-1], true
		}
	}
	return Bulletin{}, false
}

// Newest returns the newest message of each incident that lasts, or that ended
// after the time since; the newest first.
func (c *Chronicle) Newest(since, now time.Time) []Bulletin {
	var out []Bulletin
	c.mu.Lock()
	for _, i := range c.incidents {
		if chain := i.bulletins(now); len(chain) > 0 && (i.lasts() || chain[len(chain)-1].Sent.After(since)) {
			out = append(out, chain[len(chain)-1])
		}
	}
	c.mu.Unlock()
	sort.Slice(out, func(a, b int) bool {
		if !out[a].Sent.Equal(out[b].Sent) {
			return out[a].Sent.After(out[b].Sent)
		}
		return out[a].Identifier < out[b].Identifier
	})
	return out
}

// Find returns the message with this identifier.
func (c *Chronicle) Find(identifier string, now time.Time) (Bulletin, bool) {
	id := idOf(identifier)
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.incidents[id]
	if i == nil {
		return Bulletin{}, false
	}
	for _, b := range i.bulletins(now) {
		if b.Identifier == identifier {
			return b, true
		}
	}
	return Bulletin{}, false
}

// version changes with every message that is added.
func (c *Chronicle) version() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changes
}
