package bridge

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"haidang/gateway/telemetry"
)

// A Reader makes readings of a message as the gateway's broker would; known is
// false for a topic that carries no telemetry.
type Reader interface {
	Read(topic string, payload []byte) (readings []telemetry.Reading, letters []telemetry.DeadLetter, known bool)
}

// A Bridge is the connection with one other broker.
type Bridge struct {
	cfg     Config
	client  string // client id
	intake  telemetry.Intake
	reader  Reader
	metrics *bound

	commands chan command
	out      paho.Client // of Forward
	failed   time.Time   // when it could not be sent last
}

type command struct {
	topic   string
	payload []byte
}

// New makes a bridge for the gateway of that name. reader gives it a reader whose
// commands the bridge publishes at the other broker.
func New(cfg Config, gateway string, intake telemetry.Intake, metrics *Metrics, reader func(command func(topic string, payload []byte)) Reader) *Bridge {
	b := &Bridge{cfg: cfg, client: cfg.Client, intake: intake, metrics: metrics.of(cfg.Name), commands: make(chan command, maxCommands)}
	if b.client == "" {
		b.client = "haidang-" + gateway + "-" + cfg.Name
	}
	b.reader = reader(b.command)
	return b
}

// Source is what the bridge calls itself at the intake.
func (b *Bridge) Source() string { return "bridge." + b.cfg.Name }

// Follower is the name of its position in the readings log, or "" when it
// forwards nothing.
func (c *Config) Follower() string {
	if c.Forward.Topic == "" {
		return ""
	}
	return "bridge." + c.Name
}

func (b *Bridge) command(topic string, payload []byte) {
	select {
	case b.commands <- command{topic, payload}:
	default:
		b.metrics.dropped(dropCommand, 1)
	}
}

// options are those of a connection; id is its client id.
func (b *Bridge) options(id string) (*paho.ClientOptions, error) {
	server, err := b.cfg.server()
	if err != nil {
		return nil, err
	}
	encryption, err := b.cfg.encryption()
	if err != nil {
		return nil, err
	}
	return paho.NewClientOptions().AddBroker(server).SetClientID(id).SetUsername(b.cfg.User).SetPassword(b.cfg.Secret).
		SetTLSConfig(encryption).SetProtocolVersion(4).SetCleanSession(false).
		SetAutoReconnect(false).SetConnectRetry(false).SetConnectTimeout(connectTimeout).SetWriteTimeout(writeTimeout).
		SetKeepAlive(keepAlive).SetPingTimeout(keepAlive / 2), nil
}

// wait waits for a step of the MQTT client.
func wait(ctx context.Context, t paho.Token, within time.Duration) error {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-t.Done():
		return t.Error()
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("no answer within %s", within)
	}
}

// quietly is how long a disconnecting client may take to send what it has, in ms.
const quietly = 250

// A session is one connection as a source.
type session struct {
	bridge *Bridge
	failed chan error        // the first failure
	room   chan struct{}     // a place for each message that is not on disk yet
	acks   chan paho.Message // on disk, to be acknowledged
	ctx    context.Context   // of the connection
	cancel context.CancelFunc
}

// Run takes messages in until ctx ends or the connection does.
func (b *Bridge) Run(ctx context.Context) error {
	s := &session{bridge: b, failed: make(chan error, 1), room: make(chan struct{}, maxPending), acks: make(chan paho.Message, maxPending)}
	s.ctx, s.cancel = context.WithCancel(ctx)
	options, err := b.options(b.client)
	if err != nil {
		s.cancel()
		return err
	}
	// What waited at the other broker comes before any answer to SUBSCRIBE, and
	// so to the default handler; in order, or acknowledgements would not be.
	options.SetAutoAckDisabled(true).SetOrderMatters(true).SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) { s.take(m) }).
		SetConnectionLostHandler(func(_ paho.Client, err error) { s.fail(fmt.Errorf("connection to %s lost: %w", b.cfg.Connect, err)) })
	client := paho.NewClient(options)
	defer func() {
		s.cancel() // a message that waits for room does not
		client.Disconnect(quietly)
	}()
	if err := wait(ctx, client.Connect(), connectTimeout); err != nil {
		return over(ctx, fmt.Errorf("connect to %s: %w", b.cfg.Connect, err))
	}
	if err := b.subscribe(ctx, client); err != nil {
		return over(ctx, err)
	}
	b.intake.Accept(b.Source(), []telemetry.Reading{telemetry.Link(b.cfg.Name, true, nil)}, nil)
	b.metrics.connected.Set(1)
	defer b.metrics.connected.Set(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.failed:
			return err
		case m := <-s.acks:
			m.Ack()
			<-s.room
		case c := <-b.commands:
			client.Publish(c.topic, 0, false, c.payload)
		}
	}
}

// over is nil when the error is that of a context that ended.
func over(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (b *Bridge) subscribe(ctx context.Context, client paho.Client) error {
	if len(b.cfg.Subscribe) == 0 {
		return nil
	}
	filters := map[string]byte{}
	for _, filter := range b.cfg.Subscribe {
		filters[filter] = 1
	}
	token := client.SubscribeMultiple(filters, nil)
	if err := wait(ctx, token, connectTimeout); err != nil {
		return fmt.Errorf("subscribe at %s: %w", b.cfg.Connect, err)
	}
	if granted, ok := token.(*paho.SubscribeToken); ok {
		for filter, code := range granted.Result() {
			if code > 2 {
				return fmt.Errorf("subscribe at %s: %q is refused there", b.cfg.Connect, filter)
			}
		}
	}
	return nil
}

func (s *session) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// take hands a message to the intake and has it acknowledged when it is on disk.
func (s *session) take(m paho.Message) {
	b := s.bridge
	select {
	case s.room <- struct{}{}:
	case <-s.ctx.Done():
		return // it comes again
	}
	readings, letters, known := b.reader.Read(m.Topic(), m.Payload())
	if !known {
		letters = []telemetry.DeadLetter{{Source: b.Source(), Place: m.Topic(), Reason: "unknown_topic",
			Detail: "no mapping is for the topic; subscribe to less, or map it", Bytes: m.Payload()}}
	}
	b.metrics.taken.Inc()
	parts := len(letters)
	if len(readings) > 0 {
		parts++
	}
	if parts == 0 {
		s.acks <- m // there is a place for each message that has room
		return
	}
	done := s.settle(m, parts)
	if len(readings) > 0 {
		b.intake.Accept(b.Source(), readings, done)
	}
	for _, l := range letters {
		l.Source = b.Source()
		b.intake.SetAside(l, done)
	}
}

// settle returns what the intake is to call for each of n parts of a message: the
// last one has it acknowledged. When the intake refuses one the connection ends,
// and the other broker delivers the message again.
func (s *session) settle(m paho.Message, n int) func(error) {
	var left atomic.Int32
	left.Store(int32(n))
	var refused atomic.Bool
	return func(err error) {
		if err != nil {
			refused.Store(true)
			s.fail(fmt.Errorf("message on %s is not taken in: %w", m.Topic(), err))
		}
		if left.Add(-1) == 0 && !refused.Load() {
			s.acks <- m
		}
	}
}
