package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"haidang/broker/mapping"
	"haidang/broker/sparkplug"
	"haidang/gateway/telemetry"
)

// A Broker is an MQTT broker that takes telemetry in.
type Broker struct {
	cfg       Config
	intake    telemetry.Intake
	logger    *slog.Logger
	metrics   *metrics
	server    *mqtt.Server
	listeners []*listener

	budget        *semaphore.Weighted // maxPendingBytes
	subscriptions atomic.Uint64       // changes with every subscription
	audiences     audiences
	turn          atomic.Uint64 // of the members of shared subscriptions
	turns         turns         // of connections with the same client id
	room          room          // of all queues
	losses        losses
	sessions      sessions
	usages        usages
	pace          *pace         // of all clients; nil: no bound
	waiting       chan struct{} // one for each wrong secret that waits for its answer
	retained      retention
	links         links
	forwarder     forwarder
	mappings      atomic.Pointer[mapping.Set]
	routing       atomic.Uint64 // changes with the mappings
	sparkplug     *sparkplug.Host

	gate        *gate // of TLS handshakes
	accounts    Accounts
	tls         *tls.Config // of the TLS listener; nil: from the files of the configuration
	wss         *tls.Config // of the WebSocket listener, likewise
	mu          sync.Mutex
	connections map[*connection]struct{}
	goroutines  sync.WaitGroup // that serve connections
	stopping    atomic.Bool
	complaints  complaints

	connectTimeout time.Duration
	refusePause    time.Duration
}

// An Option is something that a broker can have besides.
type Option func(*Broker)

// WithAccounts makes the broker ask who clients are. Without it everybody may do
// everything, and New refuses listeners beyond loopback.
func WithAccounts(a Accounts) Option { return func(b *Broker) { b.accounts = a } }

// WithTLS gives the TLS listener and that of WebSocket their certificates, which
// may change at any time; nil leaves a listener those of its files.
func WithTLS(listener, websocket *tls.Config) Option {
	return func(b *Broker) { b.tls, b.wss = listener, websocket }
}

// WithMappings makes the broker read the topics of the mappings.
func WithMappings(s *mapping.Set) Option { return func(b *Broker) { b.SetMappings(s) } }

// SetMappings makes the broker read topics by other mappings from now on; clients
// stay connected.
func (b *Broker) SetMappings(s *mapping.Set) {
	b.mappings.Store(s)
	b.routing.Add(1)
}

// New makes a broker that hands what it receives to intake, and binds its
// listeners: an address that is in use is an error here. The configuration
// must be valid. Clients are served by Run, which also closes the listeners;
// whoever does not call Run calls Close.
func New(cfg Config, intake telemetry.Intake, reg prometheus.Registerer, logger *slog.Logger, options ...Option) (*Broker, error) {
	b := &Broker{
		cfg: cfg, intake: intake, logger: logger, metrics: newMetrics(reg),
		budget:         semaphore.NewWeighted(maxPendingBytes),
		sessions:       sessions{byID: map[string]*session{}},
		usages:         usages{byName: map[string]*usage{}},
		pace:           newPace(cfg.Limits.MessagesPerS, cfg.Limits.BytesPerS),
		waiting:        make(chan struct{}, maxWaiting),
		retained:       retention{topics: map[string]kept{}, owned: map[string]int{}, most: cfg.Limits.Retained, mostBytes: int(cfg.Limits.RetainedBytes)},
		links:          links{carriers: map[string]int{}},
		forwarder:      newForwarder(),
		connections:    map[*connection]struct{}{},
		turns:          turns{seed: maphash.MakeSeed()},
		gate:           newGate(),
		connectTimeout: connectTimeout,
		refusePause:    refusePause,
	}
	b.subscriptions.Store(1)
	b.room.most = int64(cfg.Limits.QueuesBytes)
	b.losses.counts = b.metrics.subscriberDrops
	b.sparkplug = sparkplug.NewHost(cfg.Sparkplug, b.command)
	b.sessions.count = func(account string, n int) { b.usages.change(account, 0, n) }
	b.sessions.revoke = b.revoke
	for _, option := range options {
		option(b)
	}
	if b.accounts == nil {
		if faults := cfg.Exposed(); len(faults) > 0 {
			return nil, fmt.Errorf("broker.%s", faults[0])
		}
		b.accounts = nobodysBroker{telemetry.Anyone(context.Background())}
	}
	b.server = mqtt.New(&mqtt.Options{
		Capabilities: capabilities(&cfg),
		// What mochi logs of clients comes with their payloads; what matters of
		// it is counted or logged here.
		Logger:                  slog.New(slog.DiscardHandler),
		ClientNetReadBufferSize: 256, // what is read waits in the inbox of the connection
		// None: while a delivery waits for the window of its client, and when one
		// cannot be encoded, mochi would leave those before it in the buffer.
		ClientNetWriteBufferSize: 1,
		SysTopicResendInterval:   int64(sysInterval / time.Second),
	})
	if err := b.server.AddHook(&hooks{Broker: b}, nil); err != nil {
		return nil, fmt.Errorf("add hook to the MQTT server: %w", err)
	}
	b.watch(reg)
	if err := b.bind(); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// capabilities are what mochi may do, for a machine with 512 MB.
func capabilities(cfg *Config) *mqtt.Capabilities {
	c := mqtt.NewDefaultServerCapabilities()
	c.MaximumClients = int64(cfg.MaxClients)
	c.MaximumPacketSize = uint32(cfg.Limits.PacketBytes) // 0 would let five bytes allocate 256 MB
	c.MaximumClientWritesPending = maxSysPending
	c.ReceiveMaximum = maxPending
	c.TopicAliasMaximum = 256
	c.MaximumSessionExpiryInterval = uint32(sessionExpiry / time.Second)
	// Not 0, mochi takes retained messages away after a day: a warning that has
	// been active for longer would be gone.
	c.MaximumMessageExpiryInterval = 0
	c.Compatibilities.NoInheritedPropertiesOnAck = true
	return c
}

// Addr is the address of MQTT over TCP, or "" when there is no such listener.
func (b *Broker) Addr() string { return b.address("listen") }

// TLSAddr is the address of MQTT over TLS, or "" when there is no such listener.
func (b *Broker) TLSAddr() string { return b.address("tls.listen") }

// WebsocketAddr is the address of MQTT over WebSocket, or "" when there is no
// such listener.
func (b *Broker) WebsocketAddr() string { return b.address("websocket.listen") }

func (b *Broker) address(key string) string {
	for _, l := range b.listeners {
		if l.key == key {
			return l.Addr().String()
		}
	}
	return ""
}

// Publish sends a message to the subscribers of topic, as Warnings are sent.
// With retain the broker keeps it for later subscribers, and an empty payload
// removes what it kept. qos is 0, 1 or 2. It does not wait for subscribers to
// acknowledge, and returns an error when the topic cannot be published on.
func (b *Broker) Publish(topic string, payload []byte, retain bool, qos byte) error {
	if topic == "" || strings.ContainsAny(topic, "+#\x00") || len(topic) > 65535 || qos > 2 {
		return fmt.Errorf("publish on topic %.200q with QoS %d: not a topic without + and # or not a QoS of 0 to 2", topic, qos)
	}
	b.spread(packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos, Retain: retain},
		TopicName:   topic,
		Payload:     payload,
		Created:     time.Now().Unix(),
	})
	return nil
}

// Run serves clients until ctx ends. It then takes nothing more, waits up to
// two seconds for pending acknowledgements, and ends all connections. The
// error is that of a listener that failed.
func (b *Broker) Run(ctx context.Context) error {
	if err := b.server.Serve(); err != nil {
		b.Close()
		return fmt.Errorf("start the MQTT server: %w", err)
	}
	stop := make(chan struct{})
	var local sync.WaitGroup
	local.Go(func() { b.runForwards(stop) })
	b.tellState(true)
	failed := make(chan error, len(b.listeners))
	for _, l := range b.listeners {
		local.Go(func() { failed <- l.serve() })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	b.mu.Lock()
	b.stopping.Store(true)
	b.mu.Unlock()
	b.Close()
	b.drain()
	b.tellState(false)
	b.disconnect()
	b.goroutines.Wait()
	close(stop)
	local.Wait()
	_ = b.server.Close() // it has no listeners, and so no errors
	return err
}

// Close closes the listeners of a broker that is not running.
func (b *Broker) Close() {
	for _, l := range b.listeners {
		l.close()
	}
}

// drain waits until nothing is pending, at most drainTimeout.
func (b *Broker) drain() {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(drainTimeout); b.metrics.pending.Load() > 0 && time.Now().Before(end); {
		<-tick.C
	}
}

// disconnect ends all connections, telling MQTT 5 clients why.
func (b *Broker) disconnect() {
	clients := map[*connection]*mqtt.Client{}
	for _, cl := range b.server.Clients.GetAll() {
		if cl.Properties.ProtocolVersion == 5 && !cl.Closed() {
			clients[connectionOf(cl)] = cl
		}
	}
	b.mu.Lock()
	open := make([]*connection, 0, len(b.connections))
	for c := range b.connections {
		open = append(open, c)
	}
	b.mu.Unlock()
	var said sync.WaitGroup
	for _, c := range open {
		said.Go(func() {
			c.lastWords()
			if cl := clients[c]; cl != nil {
				_ = b.server.DisconnectClient(cl, packets.ErrServerShuttingDown)
			}
			_ = c.Close()
		})
	}
	said.Wait()
}

// serve serves one connection until it ends.
func (b *Broker) serve(key string, conn net.Conn) {
	c, ok := b.open(conn)
	if !ok {
		_ = conn.Close()
		return
	}
	defer b.goroutines.Done()
	defer b.ended(c)
	defer c.leaveTurn()
	defer func() {
		if p := recover(); p != nil {
			b.panicked(c.client, "serve client", p)
			if c.client != nil {
				c.takeTurn(c.client.ID)
			}
			b.leave(c)
			b.metrics.disconnects.WithLabelValues("panic").Inc()
		}
	}()
	_ = conn.SetDeadline(time.Now().Add(b.connectTimeout))
	err := b.server.EstablishConnection(key, c)
	if c.client == nil && errors.Is(err, packets.ErrServerBusy) { // the MQTT server has answered
		b.metrics.limited(limitTotalConns)
	}
	reason, cause := c.endReason(err)
	c.part(err)
	b.metrics.disconnects.WithLabelValues(reason).Inc()
	b.tellEnd(c, reason, cause)
	b.unlink(c, cause)
}

// enter counts a goroutine of the MQTT server in that hands something to the
// intake, or not when the broker stops: Run waits for those it counted.
func (b *Broker) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopping.Load() {
		return false
	}
	b.goroutines.Add(1)
	return true
}

// open counts a connection in, or not when there are too many.
func (b *Broker) open(conn net.Conn) (*connection, bool) {
	c := b.newConnection(conn)
	b.mu.Lock()
	defer b.mu.Unlock()
	// mochi answers the clients beyond MaxClients; beyond that nobody answers.
	if b.stopping.Load() || len(b.connections) >= b.cfg.MaxClients+64 && !b.makeRoom(c) {
		c.end()
		b.metrics.drops.WithLabelValues(dropConnections).Inc()
		return nil, false
	}
	b.connections[c] = struct{}{}
	b.goroutines.Add(1)
	b.metrics.connections.Inc()
	return c, true
}

// makeRoom ends the oldest connection that has not said who it is, of the address
// that has most of them, for a newcomer from an address that has fewer; under the
// lock. Whoever opens sockets and says nothing shuts out himself alone.
func (b *Broker) makeRoom(newcomer *connection) bool {
	silent := map[netip.Addr]int{}
	for c := range b.connections {
		if !c.admitted.Load() && c.open.Err() == nil {
			silent[c.network()]++
		}
	}
	var oldest *connection
	for c := range b.connections {
		if c.admitted.Load() || c.open.Err() != nil {
			continue
		}
		most, own := 0, silent[c.network()]
		if oldest != nil {
			most = silent[oldest.network()]
		}
		if own > most || own == most && c.since.Before(oldest.since) {
			oldest = c
		}
	}
	if oldest == nil || silent[oldest.network()] <= silent[newcomer.network()]+1 {
		return false
	}
	b.metrics.drops.WithLabelValues(dropConnections).Inc()
	_ = oldest.Close() // it has no error that matters
	return true
}

// ended cleans up behind a connection, however it ended.
func (b *Broker) ended(c *connection) {
	c.part(nil)
	c.abandon()
	if s := c.session.Load(); s != nil {
		s.queue.detach(c)
	}
	if c.counted {
		b.usages.change(c.account.Name, -1, 0)
	}
	b.unlink(c, errors.New("the connection was lost"))
	b.mu.Lock()
	delete(b.connections, c)
	b.mu.Unlock()
}

// leave ends the session of a client after a panic, when mochi has not taken
// leave of it.
func (b *Broker) leave(c *connection) {
	cl := c.client
	s := c.session.Load()
	if cl == nil || s == nil {
		return
	}
	if now, ok := b.server.Clients.Get(cl.ID); ok && now == cl {
		cl.ClearInflights()
		b.server.UnsubscribeClient(cl)
		b.server.Clients.Delete(cl.ID)
		b.sessions.end(cl.ID, s, nil)
	}
}

// link notes that the connection carries the device of the route, and says so
// before what the message says.
func (b *Broker) link(c *connection, r *route) {
	r.linked = true
	if _, known := c.devices[r.device]; known {
		return
	}
	if len(c.devices) >= maxDevices {
		b.metrics.untracked.Inc()
		return
	}
	c.devices[r.device] = struct{}{}
	b.links.add(r.device, func() { b.intake.Accept(sourceName, []telemetry.Reading{telemetry.Link(r.device, true, nil)}, nil) })
}

// unlink says of the devices that no other connection carries that they are
// gone. When the broker stops it is not the devices that are gone.
func (b *Broker) unlink(c *connection, cause error) {
	if len(c.devices) == 0 {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			b.panicked(nil, "report links", p)
		}
	}()
	defer clear(c.devices)
	b.links.remove(c.devices, func(gone []string) {
		if b.stopping.Load() {
			return
		}
		readings := make([]telemetry.Reading, len(gone))
		for i, device := range gone {
			readings[i] = telemetry.Link(device, false, cause)
		}
		b.intake.Accept(sourceName, readings, nil)
	})
}

// complaints are what was last logged of each kind, so that nobody hides what he
// does behind something else.
type complaints struct {
	mu     sync.Mutex
	byText map[string]*complaint
}

type complaint struct {
	at     time.Time
	silent int // not logged since
}

// complain logs a warning, of each text at most one in ten seconds, with how many
// there were besides: all are counted.
func (b *Broker) complain(text string, args ...any) {
	now, all := time.Now(), &b.complaints
	all.mu.Lock()
	last := all.byText[text]
	if last == nil {
		last = &complaint{}
		if all.byText == nil {
			all.byText = map[string]*complaint{}
		}
		all.byText[text] = last
	}
	if now.Sub(last.at) < 10*time.Second {
		last.silent++
		all.mu.Unlock()
		return
	}
	silent := last.silent
	last.at, last.silent = now, 0
	all.mu.Unlock()
	if silent > 0 {
		args = append(args, "not_logged", silent)
	}
	b.logger.Warn(text, args...)
}

// tellEnd logs an end of which the client is to blame.
func (b *Broker) tellEnd(c *connection, reason string, cause error) {
	if reason != "protocol" && reason != "packet_too_large" && reason != "rate" {
		return
	}
	client := ""
	if c.client != nil {
		client = c.client.ID
	}
	b.complain("a client is disconnected for what it did", "reason", reason, "client", client, "address", c.address(), "error", cause)
}
