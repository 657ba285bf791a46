package broker

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

const (
	publicationBytes = 256 // what a publication takes besides topic and payload
	deliveryBytes    = 64  // what each of its deliveries takes
)

// A publication is a message on its way to all who hear it; none of them changes it.
type publication struct {
	topic      string
	payload    []byte
	origin     string              // client id of the publisher, for No Local [MQTT-3.8.3-3]
	properties *packets.Properties // of MQTT 5; nil: none
	expires    int64               // Unix time in s; 0: never
	qos        byte
	retain     bool

	bytes   int64 // that it takes of the room of all queues
	holders atomic.Int32
}

// publicationOf makes one of a packet.
func publicationOf(pk *packets.Packet, qos byte) *publication {
	p := &publication{topic: pk.TopicName, payload: pk.Payload, origin: pk.Origin, qos: qos, retain: pk.FixedHeader.Retain,
		bytes: int64(len(pk.TopicName)+len(pk.Payload)) + publicationBytes}
	if s := int64(pk.Properties.MessageExpiryInterval); s > 0 {
		// [MQTT-3.3.2-5]; a retained message has it from when it came.
		if p.expires = pk.Created + s; pk.Created == 0 {
			p.expires = time.Now().Unix() + s
		}
	}
	o := &pk.Properties
	if o.PayloadFormatFlag || o.ContentType != "" || o.ResponseTopic != "" || len(o.CorrelationData) > 0 || len(o.User) > 0 {
		p.properties = &packets.Properties{PayloadFormat: o.PayloadFormat, PayloadFormatFlag: o.PayloadFormatFlag, ContentType: o.ContentType,
			ResponseTopic: o.ResponseTopic, CorrelationData: o.CorrelationData, User: o.User}
		p.bytes += int64(len(o.ContentType) + len(o.ResponseTopic) + len(o.CorrelationData))
		for i := range o.User {
			p.bytes += int64(len(o.User[i].Key)+len(o.User[i].Val)) + 32
		}
	}
	return p
}

// A delivery is a publication for one session.
type delivery struct {
	*publication
	qos      byte
	retain   bool
	received bool  // of QoS 2: PUBREC has come
	order    int64 // of the first sending
	ids      []int // subscription identifiers, which belong to the subscription
}

// A queue is what one session is owed: what waits, and what was sent with QoS 1
// or 2 and is not acknowledged. It outlives the connections of the session, and
// what does not fit in it is dropped and counted for its account.
type queue struct {
	account string
	client  string
	most    int   // messages that wait
	room    int64 // bytes of all its messages
	all     *room // of all queues

	mu       sync.Mutex
	closed   bool
	conn     *connection // nil while the client is away
	waiting  []delivery
	first    int // of waiting
	flight   map[uint16]delivery
	again    []uint16 // of flight: to be sent again on this connection, in order
	unacked  int      // sent on this connection and not acknowledged
	window   int      // how many may be
	lastID   uint16
	order    int64
	bytes    int64
	version  byte
	maxBytes int // of a packet that the client takes; 0: any
}

// room is what all queues together hold.
type room struct {
	most     int64
	bytes    atomic.Int64
	messages atomic.Int64
}

// Why a delivery was not queued.
type verdict byte

const (
	queued    verdict = iota
	unowed            // QoS 0 to a client that is away, or a session that has ended
	queueFull         // the bound of the session
	roomFull          // the bound of all
)

// put queues a publication. extra is how many messages more than its bound may
// wait.
func (q *queue) put(d delivery, extra int) (verdict, *connection) {
	q.mu.Lock()
	defer q.mu.Unlock()
	need := d.bytes + deliveryBytes
	switch {
	case q.closed, q.conn == nil && d.qos == 0:
		return unowed, nil
	case len(q.waiting)-q.first >= q.most+extra, q.bytes+need > q.room:
		return queueFull, q.conn
	case q.all.bytes.Load()+need > q.all.most:
		return roomFull, q.conn
	}
	q.hold(&d)
	if q.first > 0 && len(q.waiting) == cap(q.waiting) {
		n := copy(q.waiting, q.waiting[q.first:])
		clear(q.waiting[n:])
		q.waiting, q.first = q.waiting[:n], 0
	}
	q.waiting = append(q.waiting, d)
	return queued, q.conn
}

// hold counts a delivery in, under the lock.
func (q *queue) hold(d *delivery) {
	q.bytes += d.bytes + deliveryBytes
	own := int64(deliveryBytes)
	if d.holders.Add(1) == 1 {
		own += d.bytes
	}
	q.all.bytes.Add(own)
	q.all.messages.Add(1)
}

// release counts a delivery out, under the lock.
func (q *queue) release(d *delivery) {
	q.bytes -= d.bytes + deliveryBytes
	own := int64(deliveryBytes)
	if d.holders.Add(-1) == 0 {
		own += d.bytes
	}
	q.all.bytes.Add(-own)
	q.all.messages.Add(-1)
}

// attach makes the connection the one that the queue goes to. What was not
// acknowledged is sent again first [MQTT-4.4.0-1], in the order of the first time
// [MQTT-4.6.0-1].
func (q *queue) attach(c *connection, window int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.conn, q.window, q.unacked = c, window, 0
	q.version, q.maxBytes = c.client.Properties.ProtocolVersion, int(c.client.Properties.Props.MaximumPacketSize)
	q.again = q.again[:0]
	for id := range q.flight {
		q.again = append(q.again, id)
	}
	slices.SortFunc(q.again, func(a, b uint16) int { return int(q.flight[a].order - q.flight[b].order) })
}

// detach notes that the connection has ended. What waits with QoS 0 has gone with
// it.
func (q *queue) detach(c *connection) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.conn != c {
		return
	}
	q.conn = nil
	kept := q.waiting[:0]
	for i := q.first; i < len(q.waiting); i++ {
		if d := &q.waiting[i]; d.qos == 0 {
			q.release(d)
		} else {
			kept = append(kept, *d)
		}
	}
	clear(q.waiting[len(kept):])
	q.waiting, q.first = kept, 0
}

// close gives back all that the queue holds, for good.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := q.first; i < len(q.waiting); i++ {
		q.release(&q.waiting[i])
	}
	for _, d := range q.flight {
		q.release(&d)
	}
	q.closed, q.conn, q.waiting, q.first, q.flight, q.again = true, nil, nil, 0, nil, nil
}

// A pull is what was taken from a queue to be written.
type pull struct {
	sent     int
	oversize int // packets that the client does not take
}

// pull appends packets to out until it has limit bytes, or the client may not be
// sent more, or there is no more.
func (q *queue) pull(c *connection, out []byte, limit int) ([]byte, pull) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var p pull
	if q.conn != c {
		return out, p
	}
	now := time.Now().Unix()
	for len(q.again) > 0 && len(out) < limit && q.unacked < q.window {
		id := q.again[0]
		q.again = q.again[1:]
		d, ok := q.flight[id]
		if !ok {
			continue // acknowledged meanwhile
		}
		if d.received {
			out = append(out, packets.Pubrel<<4|2, 2, byte(id>>8), byte(id))
		} else {
			out = appendPublish(out, &d, id, q.version, true, now)
		}
		q.unacked++
		p.sent++
	}
	for len(q.again) == 0 && q.first < len(q.waiting) && len(out) < limit {
		d := &q.waiting[q.first]
		if d.qos > 0 && q.unacked >= q.window {
			break
		}
		out = q.send(d, out, now, &p)
		*d = delivery{}
		if q.first++; q.first == len(q.waiting) {
			q.waiting, q.first = q.waiting[:0], 0
			if cap(q.waiting) > 256 {
				q.waiting = nil
			}
		}
	}
	return out, p
}

// send appends the packet of a delivery that is sent for the first time, under
// the lock.
func (q *queue) send(d *delivery, out []byte, now int64, p *pull) []byte {
	if d.expires > 0 && d.expires <= now {
		q.release(d)
		return out
	}
	id := uint16(0)
	if d.qos > 0 {
		id = q.nextID()
	}
	start := len(out)
	out = appendPublish(out, d, id, q.version, false, now)
	if q.maxBytes > 0 && len(out)-start > q.maxBytes {
		p.oversize++ // [MQTT-3.1.2-25]: as if it were delivered
		q.release(d)
		return out[:start]
	}
	p.sent++
	if d.qos == 0 {
		q.release(d)
		return out
	}
	if q.flight == nil {
		q.flight = map[uint16]delivery{}
	}
	q.order++
	d.order = q.order
	q.flight[id] = *d
	q.lastID = id
	q.unacked++
	return out
}

// nextID is a packet id that is not in use: there are fewer in use than ids.
func (q *queue) nextID() uint16 {
	for id := q.lastID + 1; ; id++ {
		if _, used := q.flight[id]; id != 0 && !used {
			return id
		}
	}
}

// acknowledged ends the exchange with this packet id, if there is one.
func (q *queue) acknowledged(id uint16) {
	q.mu.Lock()
	defer q.mu.Unlock()
	d, ok := q.flight[id]
	if !ok {
		return
	}
	delete(q.flight, id)
	q.release(&d)
	if q.unacked > 0 {
		q.unacked--
	}
}

// received notes PUBREC of a delivery and reports whether it is one of QoS 2 that
// waits for it.
func (q *queue) received(id uint16) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	d, ok := q.flight[id]
	if !ok || d.qos != 2 {
		return false
	}
	d.received = true
	q.flight[id] = d
	return true
}

// crowded reports whether little room is left for messages to a client that is
// there, and whether it is the client that is waited for.
func (q *queue) crowded() (c *connection, slow bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.conn == nil || q.closed || (len(q.waiting)-q.first)*4 < q.most*3 && q.bytes*4 < q.room*3 {
		return nil, false
	}
	return q.conn, q.unacked >= q.window
}

// reach returns the connection of a client that is there and has room.
func (q *queue) reach() (*connection, int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	waiting := len(q.waiting) - q.first
	if q.closed || waiting >= q.most {
		return nil, waiting
	}
	return q.conn, waiting
}

// backlog is how much the queue holds.
func (q *queue) backlog() (messages int, bytes int64, away bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting) - q.first + len(q.flight), q.bytes, q.conn == nil
}
