package broker

import "sync"

// A session holds the packet ids of QoS 2 messages that were taken in and not
// yet released by PUBREL. It belongs to the client's session and outlives its
// connections.
type session struct {
	mu  sync.Mutex
	ids *[1 << 16 / 64]uint64 // one bit each; nil until QoS 2 is used
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
}

// start returns the session that a client goes on with (present), or a new one.
func (s *sessions) start(id string, present bool) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.byID[id]; old != nil && present {
		return old
	}
	fresh := &session{}
	s.byID[id] = fresh
	return fresh
}

// end forgets the session of a client unless a newer one has taken its place.
func (s *sessions) end(id string, ended *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID[id] == ended {
		delete(s.byID, id)
	}
}

// retention bounds what clients may have retained.
type retention struct {
	mu    sync.Mutex
	sizes map[string]int // bytes by topic
	total int
}

// keep reports whether a message may be retained on the topic, and notes its
// size; one without payload clears the topic [MQTT-3.3.1-6].
func (r *retention) keep(topic string, bytes int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, known := r.sizes[topic]
	if bytes == 0 {
		delete(r.sizes, topic)
		r.total -= old
		return true
	}
	if !known && len(r.sizes) >= maxRetained || r.total-old+bytes > maxRetainBytes {
		return false
	}
	r.sizes[topic] = bytes
	r.total += bytes - old
	return true
}

// links counts the connections that carry each device.
type links struct {
	mu       sync.Mutex
	carriers map[string]int
}

// add reports whether this is the first connection that carries the device.
func (l *links) add(device string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.carriers[device]++
	return l.carriers[device] == 1
}

// remove reports whether no connection carries the device any more.
func (l *links) remove(device string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.carriers[device]--; l.carriers[device] > 0 {
		return false
	}
	delete(l.carriers, device)
	return true
}
