package broker

import (
	"strings"
	"sync"

	"github.com/mochi-mqtt/server/v2/packets"
)

// A hearer is a session with its subscription to a topic.
type hearer struct {
	client  string
	session *session
	qos     byte
	noLocal bool
	retains bool  // Retain As Published
	ids     []int // subscription identifiers
}

// An audience is who hears a topic: each of alone, and one of each group of
// shared subscriptions [MQTT-4.8.2-4].
type audience struct {
	alone  []hearer
	groups [][]hearer
}

func (a *audience) empty() bool { return len(a.alone)+len(a.groups) == 0 }

// size is how many hearers there are.
func (a *audience) size() int {
	n := len(a.alone)
	for _, group := range a.groups {
		n += len(group)
	}
	return n
}

// audiences remembers who hears which topic until somebody subscribes, leaves or
// comes back: to ask for every message would cost more than all the rest.
type audiences struct {
	mu         sync.RWMutex
	generation uint64
	byTopic    map[string]*audience
	hearers    int // of all topics
}

// maxAudiences is how many topics are remembered, maxHearers how many hearers of all
// of them: where all clients hear all topics they are what takes memory, 64 bytes
// each.
const (
	maxAudiences = 4096
	maxHearers   = 128 << 10
)

// audience returns who hears the topic.
func (b *Broker) audience(topic string) *audience {
	now, a := b.subscriptions.Load(), &b.audiences
	a.mu.RLock()
	found := a.byTopic[topic]
	if a.generation != now {
		found = nil
	}
	a.mu.RUnlock()
	if found != nil {
		return found
	}
	found = b.gather(topic)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.generation != now || len(a.byTopic) >= maxAudiences || a.hearers >= maxHearers {
		if a.generation > now {
			return found // somebody knows newer ones
		}
		a.generation, a.byTopic, a.hearers = now, map[string]*audience{}, 0
	}
	a.byTopic[strings.Clone(topic)] = found // the topic is a view of its packet
	a.hearers += found.size()
	return found
}

// gather asks the index of subscriptions.
func (b *Broker) gather(topic string) *audience {
	s := b.server.Topics.Subscribers(topic)
	found := &audience{}
	for client, sub := range s.Subscriptions {
		if l, ok := b.hearer(client, &sub); ok {
			found.alone = append(found.alone, l)
		}
	}
	for _, members := range s.Shared {
		var group []hearer
		for client, sub := range members {
			if l, ok := b.hearer(client, &sub); ok {
				group = append(group, l)
			}
		}
		if len(group) > 0 {
			found.groups = append(found.groups, group)
		}
	}
	return found
}

func (b *Broker) hearer(client string, sub *packets.Subscription) (hearer, bool) {
	s := b.sessions.of(client)
	if s == nil {
		return hearer{}, false
	}
	l := hearer{client: client, session: s, qos: sub.Qos, noLocal: sub.NoLocal, retains: sub.RetainAsPublished}
	for _, id := range sub.Identifiers {
		if id > 0 {
			l.ids = append(l.ids, id)
		}
	}
	if len(sub.Identifiers) == 0 && sub.Identifier > 0 {
		l.ids = []int{sub.Identifier}
	}
	return l, true
}

// broadcast hands a message to all who hear its topic. It may wait, see
// awaitTurn.
func (b *Broker) broadcast(p *publication) {
	a := b.audience(p.topic)
	for i := range a.alone {
		l := &a.alone[i]
		if l.noLocal && p.origin == l.client {
			continue // [MQTT-3.8.3-3]
		}
		b.deliver(l, p, false)
	}
	for _, group := range a.groups {
		b.deliver(b.choose(group), p, false)
	}
}

// choose takes the members of a group in turns, those that are there before those
// that are away.
func (b *Broker) choose(group []hearer) *hearer {
	n := b.turn.Add(1)
	for i := range group {
		l := &group[(n+uint64(i))%uint64(len(group))]
		if c, _ := l.session.queue.reach(); c != nil {
			return l
		}
	}
	return &group[n%uint64(len(group))]
}

// deliver queues a message for one who hears it. kept is for a retained message
// that is sent because somebody subscribes.
func (b *Broker) deliver(l *hearer, p *publication, kept bool) {
	d := delivery{publication: p, qos: min(p.qos, l.qos), ids: l.ids}
	d.retain = kept || p.retain && l.retains // [MQTT-3.3.1-12], [MQTT-3.3.1-13]
	q, extra := &l.session.queue, 0
	if kept {
		extra = maxRetained // who subscribes gets them all, and waits for none of them
	} else {
		b.awaitTurn(q)
	}
	what, c := q.put(d, extra)
	switch what {
	case queued:
		if c != nil {
			c.kick()
		}
	case queueFull:
		b.dropped(q, dropQueue)
	case roomFull:
		b.dropped(q, dropRoom)
	}
}

// dropped counts a message that a subscriber does not get.
func (b *Broker) dropped(q *queue, reason string) {
	b.metrics.drops.WithLabelValues(reason).Inc()
	b.losses.count(q.account)
	b.complain("messages for a subscriber are dropped: it reads too slowly or is away for too long", "account", q.account, "client", q.client, "limit", reason)
}

// retain keeps a message for those who subscribe later; one without payload takes
// away what was kept [MQTT-3.3.1-6].
func (b *Broker) retain(pk packets.Packet) {
	pk = pk.Copy(false)
	pk.FixedHeader.Retain, pk.Ignore = true, false
	b.server.Topics.RetainMessage(pk)
}

// sendRetained sends what is retained under a filter to a session that has
// subscribed (3.8.3.1, 4.8.2).
func (b *Broker) sendRetained(c *connection, sub *packets.Subscription, existed bool) {
	s := c.session.Load()
	if s == nil || strings.HasPrefix(sub.Filter, "$") || sub.RetainHandling == 1 && existed || sub.RetainHandling == 2 {
		return // of $SYS the MQTT server sends itself; shared subscriptions get none
	}
	l := hearer{client: c.client.ID, session: s, qos: sub.Qos}
	if sub.Identifier > 0 {
		l.ids = []int{sub.Identifier}
	}
	for _, pk := range b.server.Topics.Messages(sub.Filter) {
		b.deliver(&l, publicationOf(&pk, pk.FixedHeader.Qos), true)
	}
}
