package broker

import (
	"strings"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"golang.org/x/time/rate"

	"haidang/gateway/telemetry"
)

// Limits bound what all clients together, or any one of them, may use. Those of
// an account are in its own record.
type Limits struct {
	MessagesPerS  int            `yaml:"messages_per_s"` // published by all clients; 0: no bound
	BytesPerS     telemetry.Size `yaml:"bytes_per_s"`    // topics and payloads, of all clients; 0: no bound
	PacketBytes   telemetry.Size `yaml:"packet_bytes"`   // a larger packet ends the connection
	Inflight      int            `yaml:"inflight"`       // QoS 1 and 2 messages on the way to a client
	Queue         int            `yaml:"queue"`          // messages that wait for a client that reads slowly or is away
	QueueBytes    telemetry.Size `yaml:"queue_bytes"`    // memory of what waits for a client or is not acknowledged by it
	QueuesBytes   telemetry.Size `yaml:"queues_bytes"`   // the same of all clients
	Retained      int            `yaml:"retained"`       // retained messages of all clients
	RetainedBytes telemetry.Size `yaml:"retained_bytes"` // their payloads
	Subscriptions int            `yaml:"subscriptions"`  // of all clients
	Levels        int            `yaml:"levels"`         // of a topic or filter
	// OverRate is what happens to a client above its rate: slow (default: its
	// socket is not read for a while) or disconnect.
	OverRate string `yaml:"over_rate"`
}

// What happens to a client above its rate.
const (
	overRateSlow       = "slow"
	overRateDisconnect = "disconnect"
)

// DefaultLimits are the limits for a machine with 512 MB.
func DefaultLimits() Limits {
	return Limits{
		PacketBytes: maxPacketBytes, Inflight: maxInflight, Queue: maxQueued,
		QueueBytes: maxQueueBytes, QueuesBytes: maxQueuesBytes, Retained: maxRetained, RetainedBytes: maxRetainBytes,
		Subscriptions: 100_000, Levels: 32, OverRate: overRateSlow,
	}
}

func (l *Limits) validate() []telemetry.Fault {
	var faults []telemetry.Fault
	within := func(path string, n, least, most int64) {
		if n < least || n > most {
			faults = append(faults, telemetry.Faultf(path, "%s %d is not in %d..%d", path, n, least, most))
		}
	}
	within("messages_per_s", int64(l.MessagesPerS), 0, 10_000_000)
	within("bytes_per_s", int64(l.BytesPerS), 0, 1<<40)
	within("packet_bytes", int64(l.PacketBytes), 1<<10, 64<<20)
	within("inflight", int64(l.Inflight), 1, 65_535)
	within("queue", int64(l.Queue), 1, 1_000_000)
	within("queue_bytes", int64(l.QueueBytes), 4<<10, 1<<40)
	within("queues_bytes", int64(l.QueuesBytes), 4<<10, 1<<40)
	within("retained", int64(l.Retained), 0, 10_000_000)
	within("retained_bytes", int64(l.RetainedBytes), 0, 1<<40)
	within("subscriptions", int64(l.Subscriptions), 1, 100_000_000)
	within("levels", int64(l.Levels), 3, 128)
	if l.OverRate != overRateSlow && l.OverRate != overRateDisconnect {
		faults = append(faults, telemetry.Faultf("over_rate", "over_rate %q is not one of %s, %s", l.OverRate, overRateSlow, overRateDisconnect))
	}
	return faults
}

// Limits by name, as the metric counts them.
const (
	limitConnections   = "connections"
	limitSessions      = "sessions"
	limitRate          = "rate"
	limitPacket        = "packet"
	limitSubscriptions = "subscriptions"
	limitRetained      = "retained"
	limitLevels        = "levels"
	limitTotalConns    = "total_connections"
	limitTotalRate     = "total_rate"
	limitTotalSubs     = "total_subscriptions"
	limitTotalRetained = "total_retained"
	limitDevices       = "devices"
)

// rateBurst is how much of its rate a client may use at once: a device that was
// cut off sends what it kept.
const rateBurst = 10 * time.Second

// A pace bounds messages and bytes per second; nil bounds nothing.
type pace struct{ messages, bytes *rate.Limiter }

func newPace(messagesPerS int, bytesPerS telemetry.Size) *pace {
	if messagesPerS == 0 && bytesPerS == 0 {
		return nil
	}
	return &pace{messages: limiter(int64(messagesPerS)), bytes: limiter(int64(bytesPerS))}
}

func limiter(perSecond int64) *rate.Limiter {
	if perSecond == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(perSecond), int(perSecond*int64(rateBurst/time.Second)))
}

// take notes a message and returns how long to wait before it is in order.
func (p *pace) take(now time.Time, bytes int) time.Duration {
	if p == nil {
		return 0
	}
	wait := time.Duration(0)
	if p.messages != nil {
		wait = p.messages.ReserveN(now, 1).DelayFrom(now)
	}
	if p.bytes != nil {
		wait = max(wait, p.bytes.ReserveN(now, min(bytes, p.bytes.Burst())).DelayFrom(now))
	}
	return wait
}

// A usage is what an account uses now, over all of its connections.
type usage struct {
	connections int
	sessions    int
	pace        *pace
}

// usages are those of all accounts that use something.
type usages struct {
	mu     sync.Mutex
	byName map[string]*usage
}

// connect counts a connection in and returns how the account may publish. The
// word is the limit that it is over. A session or a connection that the client
// only takes up again is there already.
func (u *usages) connect(a *telemetry.Account, takeover, session bool) (*pace, string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	use := u.of(a)
	switch {
	case a.Limits.Connections > 0 && use.connections >= a.Limits.Connections && !takeover:
		return nil, limitConnections
	case a.Limits.Sessions > 0 && use.sessions >= a.Limits.Sessions && !session:
		return nil, limitSessions
	}
	use.connections++
	return use.pace, ""
}

func (u *usages) of(a *telemetry.Account) *usage {
	use := u.byName[a.Name]
	if use == nil {
		use = &usage{pace: newPace(a.Limits.MessagesPerS, a.Limits.BytesPerS)}
		u.byName[a.Name] = use
	}
	return use
}

// change adds to what an account uses; who uses nothing is forgotten, with his
// pace: a client that comes back has its burst again.
func (u *usages) change(name string, connections, sessions int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	use := u.byName[name]
	if use == nil {
		return
	}
	use.connections += connections
	use.sessions += sessions
	if use.connections <= 0 && use.sessions <= 0 {
		delete(u.byName, name)
	}
}

// throttle holds a client to the rate of its account and of all together, by not
// reading on, or by ending the connection with the reason.
func (c *connection) throttle(bytes int) error {
	if c.pace == nil && c.broker.pace == nil {
		return nil
	}
	now, limit := time.Now(), limitRate
	wait := c.pace.take(now, bytes)
	if all := c.broker.pace.take(now, bytes); all > wait {
		limit, wait = limitTotalRate, all
	}
	if wait <= 0 {
		return nil
	}
	c.broker.metrics.limited(limit)
	c.broker.complain("a client publishes faster than it may", "account", c.account.Name, "client", c.client.ID, "limit", limit, "over_rate", c.broker.cfg.Limits.OverRate)
	if c.broker.cfg.Limits.OverRate == overRateDisconnect {
		return c.end5(packets.ErrMessageRateTooHigh)
	}
	pause := time.NewTimer(wait)
	defer pause.Stop()
	select {
	case <-pause.C:
		return nil
	case <-c.open.Done():
		return packets.ErrMessageRateTooHigh
	}
}

// tooLarge reports whether topic and payload are over what the account may send at
// once.
func (c *connection) tooLarge(bytes int) bool {
	most := c.account.Limits.PacketBytes
	return most > 0 && bytes > int(most)
}

// end5 ends the connection, telling an MQTT 5 client why, and returns why.
func (c *connection) end5(code packets.Code) error {
	c.drop(code)
	return code
}

// deep reports whether a topic or filter has more levels than are taken: each
// costs memory for as long as somebody is subscribed.
func (b *Broker) deep(topic string) bool { return strings.Count(topic, "/") >= b.cfg.Limits.Levels }
