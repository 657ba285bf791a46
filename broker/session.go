package broker

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"haidang/gateway/telemetry"
)

// A session holds the packet ids of QoS 2 messages that were taken in and not
// yet released by PUBREL. It belongs to the client's session and outlives its
// connections.
type session struct {
	account string
	stop    func() bool // ends the watch over the life of the account
	revoked atomic.Bool // the account was removed or changed
	owner   *connection // the newest; under the lock of sessions
	queue   queue

	mu    sync.Mutex
	ids   *[1 << 16 / 64]uint64    // one bit each; nil until QoS 2 is used
	taken map[uint16]chan struct{} // of those on their way to the disk; closed when they are settled
}

// taking notes that a message is on its way to the disk. What it returns is called
// once, with whether it got there.
func (s *session) taking(id uint16) func(ok bool) {
	settled := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken == nil {
		s.taken = map[uint16]chan struct{}{}
	}
	s.taken[id] = settled
	return func(ok bool) {
		if ok {
			s.know(id)
		}
		s.mu.Lock()
		delete(s.taken, id)
		s.mu.Unlock()
		close(settled)
	}
}

// awaitTaken waits until the message with this id, which an earlier connection
// has sent, is settled; false means that the connection is closed.
func (s *session) awaitTaken(open context.Context, id uint16) bool {
	s.mu.Lock()
	settled := s.taken[id]
	s.mu.Unlock()
	if settled == nil {
		return true
	}
	select {
	case <-settled:
		return true
	case <-open.Done():
		return false
	}
}

func (s *session) know(id uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ids == nil {
		s.ids = new([1 << 16 / 64]uint64)
	}
	s.ids[id/64] |= 1 << (id % 64)
}

func (s *session) knows(id uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ids != nil && s.ids[id/64]&(1<<(id%64)) != 0
}

// release forgets an id and reports whether it was known.
func (s *session) release(id uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ids == nil {
		return false
	}
	known := s.ids[id/64]&(1<<(id%64)) != 0
	s.ids[id/64] &^= 1 << (id % 64)
	return known
}

// sessions are those of all clients, by client id.
type sessions struct {
	mu   sync.Mutex
	byID map[string]*session

	count  func(account string, sessions int)       // what an account uses
	revoke func(id string, s *session, cause error) // when the life of the account ends
}

// start returns the session that a client goes on with (present), or a new one.
func (s *sessions) start(c *connection, present bool) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, account := c.client.ID, c.account
	now := s.byID[id]
	if now != nil {
		now.stop()
	} else {
		s.count(account.Name, 1)
	}
	if now == nil || !present {
		if now != nil {
			now.queue.close()
		}
		now = &session{account: account.Name}
		c.broker.furnish(&now.queue, id, account)
		s.byID[id] = now
	}
	now.owner = c
	s.watch(id, now, account.Life)
	return now
}

// watch ends a session when a life does, under the lock.
func (s *sessions) watch(id string, watched *session, life context.Context) {
	watched.stop = context.AfterFunc(life, func() { s.revoke(id, watched, context.Cause(life)) })
}

// goOn makes a session that is still there that of the account's next life.
func (s *sessions) goOn(id string, kept *session, life context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID[id] == kept {
		kept.stop()
		s.watch(id, kept, life)
	}
}

// end forgets the session of a client unless a newer one has taken its place, or
// a newer connection than owner goes on with it; nil is for any.
func (s *sessions) end(id string, ended *session, owner *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ended != nil && s.byID[id] == ended && (owner == nil || ended.owner == owner) {
		ended.stop()
		ended.queue.close()
		delete(s.byID, id)
		s.count(ended.account, -1)
	}
}

// of returns the session of a client, or nil.
func (s *sessions) of(id string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byID[id]
}

// all returns the sessions that there are.
func (s *sessions) all() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.byID))
}

// furnish gives a new queue its bounds.
func (b *Broker) furnish(q *queue, id string, account *telemetry.Account) {
	q.account, q.client, q.all = account.Name, id, &b.room
	q.most, q.room = b.cfg.Limits.Queue, int64(b.cfg.Limits.QueueBytes)
	if own := account.Limits.Queue; own > 0 {
		q.most = min(q.most, own)
	}
	if own := int64(account.Limits.QueueBytes); own > 0 {
		q.room = min(q.room, own)
	}
}

// retention bounds what clients may have retained.
type retention struct {
	mu     sync.Mutex
	topics map[string]kept
	owned  map[string]int // topics by account
	bytes  int

	most, mostBytes int
}

// kept is a retained message: its bytes, and the account that sent it.
type kept struct {
	bytes   int
	account string
}

// keep notes a message that is to be retained on the topic; one without payload
// clears the topic [MQTT-3.3.1-6]. The word is the limit that keeps it from being
// retained.
func (r *retention) keep(topic string, bytes int, account *telemetry.Account) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, known := r.topics[topic]
	if bytes == 0 {
		r.forget(topic)
		return ""
	}
	own := r.owned[account.Name]
	if known && old.account == account.Name {
		own--
	}
	switch {
	case !known && len(r.topics) >= r.most, r.bytes-old.bytes+bytes > r.mostBytes:
		return limitTotalRetained
	case account.Limits.Retained > 0 && own >= account.Limits.Retained:
		return limitRetained
	}
	r.forget(topic)
	r.topics[topic] = kept{bytes, account.Name}
	r.owned[account.Name]++
	r.bytes += bytes
	return ""
}

// forget gives back what a topic holds, under the lock.
func (r *retention) forget(topic string) {
	old, known := r.topics[topic]
	if !known {
		return
	}
	delete(r.topics, topic)
	r.bytes -= old.bytes
	if r.owned[old.account]--; r.owned[old.account] <= 0 {
		delete(r.owned, old.account)
	}
}

// expired gives back the room of a message that mochi has taken away.
func (r *retention) expired(topic string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(topic)
}

// links counts the connections that carry each device. What changes is told under
// the lock: a client that comes back while its old connection ends must not have
// its coming written before its going.
type links struct {
	mu       sync.Mutex
	carriers map[string]int
}

// add calls came when this is the first connection that carries the device.
func (l *links) add(device string, came func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.carriers[device]++
	if l.carriers[device] == 1 {
		came()
	}
}

// remove calls left with the devices, if any, that no connection carries any more.
func (l *links) remove(devices map[string]struct{}, left func(gone []string)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var gone []string
	for device := range devices {
		if l.carriers[device]--; l.carriers[device] > 0 {
			continue
		}
		delete(l.carriers, device)
		gone = append(gone, device)
	}
	if len(gone) > 0 {
		left(gone)
	}
}
