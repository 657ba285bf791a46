package modbus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"haidang/drivers/link"
	"haidang/gateway/telemetry"
)

const (
	registrationTime  = 30 * time.Second       // from the connection to a known registration
	registrationQuiet = 200 * time.Millisecond // a packet is over after it
	maxRegistration   = 256                    // bytes before the registration is known
	toldStrangers     = 100                    // unknown registrations that are told once each
	firstCall         = 2 * time.Minute        // from the start to a modem that is told as not connected
)

// errNoModem is the cause of a modem that is not connected.
var errNoModem = errors.New("the modem has not dialled in")

// A modem is one device that dials in, with the bus behind it.
type modem struct {
	config  *Modem
	bus     *bus
	matcher matcher
	any     bool          // the line's only modem, and it does not register
	arrived chan struct{} // a connection waits

	mu      sync.Mutex
	waiting link.Stream // the newest connection, not yet in use
	current link.Stream // the one in use
	over    bool        // the line has stopped
}

func newModem(cfg *Modem, b *bus) *modem {
	m := &modem{config: cfg, bus: b, any: cfg.Registration.empty(), arrived: make(chan struct{}, 1)}
	r := b.medium.(*rtu)
	r.watched = true
	r.dial = m.take
	for _, packet := range []*Packet{&cfg.Heartbeat, &cfg.Registration} { // some repeat their registration as heartbeat
		if beat, err := packet.bytes(); err == nil && len(beat) > 0 {
			r.beats = append(r.beats, beat)
		}
	}
	if !m.any {
		m.matcher = newMatcher(&cfg.Registration)
	}
	return m
}

// take is the dialer of a modem: it gives out the connection that waits.
func (m *modem) take(context.Context) (link.Stream, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waiting == nil {
		return nil, &connectError{cause: errNoModem}
	}
	m.current, m.waiting = m.waiting, nil
	return m.current, nil
}

// offer puts a new connection in place of the old one: the modem knows best
// which of them lives.
func (m *modem) offer(stream link.Stream) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over {
		stream.Close()
		return
	}
	if m.waiting != nil {
		m.waiting.Close()
	}
	m.waiting = stream
	if m.current != nil {
		m.current.Close() // who reads from it is woken
		m.current = nil
	}
	select {
	case m.arrived <- struct{}{}:
	default:
	}
}

// hangUp ends both connections, and those that are still offered.
func (m *modem) hangUp() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = true
	for _, stream := range []link.Stream{m.waiting, m.current} {
		if stream != nil {
			stream.Close()
		}
	}
	m.waiting, m.current = nil, nil
}

// begin lets connections in again.
func (m *modem) begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = false
}

// run polls while the modem is connected, until the context ends.
func (m *modem) run(ctx context.Context) {
	defer m.hangUp()
	late := time.NewTimer(firstCall)
	defer late.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-late.C:
			if m.bus.told == unknown {
				m.bus.logger.Warn("modem has not dialled in", "within", firstCall)
				m.bus.lost(ctx, errNoModem) // told; nobody needs its error
			}
			continue
		case <-m.arrived:
		}
		if !m.connected() {
			continue // the bus had taken it up already, and it is gone
		}
		err := m.bus.run(ctx)
		m.forget()
		if err != nil {
			m.bus.logger.Warn("modem is gone", "error", err)
		}
	}
}

// connected reports whether there is a connection; reading by hand may have
// opened it before the bus.
func (m *modem) connected() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.waiting != nil || m.current != nil
}

// forget drops the connection that the bus has closed.
func (m *modem) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.current = nil
}

// serve listens for modems until the context ends.
func (l *Line) serve(ctx context.Context) error {
	listener, err := link.Bind(ctx, l.endpoint.target, link.Options{
		MaxPeers: 2*len(l.modems) + 16,
		Refused: func(peer string) {
			l.metrics.strangers[strangerMany].Inc()
			l.logger.Warn("too many connections, this one was closed", "peer", peer)
		},
	})
	if err != nil {
		l.metrics.failures[reasonConnect].Inc()
		if l.told != down {
			l.told = down
			l.intake.Accept(l.source, []telemetry.Reading{telemetry.Link(l.config.Name, false, err)}, nil)
		}
		return fmt.Errorf("modbus line %q: %w", l.config.Name, err)
	}
	defer listener.Close()
	if l.told != up {
		l.told = up
		l.intake.Accept(l.source, []telemetry.Reading{telemetry.Link(l.config.Name, true, nil)}, nil)
	}
	return l.welcome(ctx, listener)
}

// An acceptor takes connections; link.Listener is one.
type acceptor interface {
	Accept(ctx context.Context) (link.Stream, string, error)
}

func (l *Line) welcome(ctx context.Context, listener acceptor) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for _, m := range l.modems {
		m.begin()
		running.Go(func() { m.run(ctx) })
	}
	known := &strangers{told: map[string]bool{}}
	for {
		stream, peer, err := listener.Accept(ctx)
		if ctx.Err() != nil {
			if err == nil {
				stream.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("modbus line %q: %w", l.config.Name, err)
		}
		running.Go(func() { l.register(ctx, stream, peer, known) })
	}
}

// register finds out which modem has connected.
func (l *Line) register(ctx context.Context, stream link.Stream, peer string, known *strangers) {
	if m := l.modems[0]; m.any {
		m.offer(stream)
		return
	}
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	m, arrived, err := l.recognise(stream)
	if !stop() {
		return // closed
	}
	if m != nil {
		m.offer(stream)
		return
	}
	stream.Close()
	reason := strangerUnknown
	if len(arrived) == 0 {
		reason = strangerSilent
	}
	l.metrics.strangers[reason].Inc()
	if known.news(string(arrived)) {
		l.logger.Warn("a connection was closed: it is no modem of this line", "peer", peer, "registration", fmt.Sprintf("%q", arrived), "hex", fmt.Sprintf("% x", arrived), "error", err)
	}
}

// recognise reads until a registration is known. Where several fit, the longest
// is meant.
func (l *Line) recognise(stream link.Stream) (*modem, []byte, error) {
	deadline := time.Now().Add(registrationTime)
	arrived := make([]byte, 0, maxRegistration)
	for {
		until := deadline
		if len(arrived) > 0 {
			until = earlier(deadline, time.Now().Add(registrationQuiet))
		}
		if err := stream.SetReadDeadline(until); err != nil {
			return nil, arrived, err
		}
		n, err := stream.Read(arrived[len(arrived):cap(arrived)])
		arrived = arrived[:len(arrived)+n]
		full := len(arrived) == cap(arrived)
		if n > 0 && !full {
			continue // until it is quiet: one registration may begin another
		}
		if m := l.registered(arrived); m != nil {
			return m, arrived, nil
		}
		switch {
		case full:
			return nil, arrived, fmt.Errorf("no known registration in %d bytes", len(arrived))
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return nil, arrived, err
		case !time.Now().Before(deadline):
			return nil, arrived, fmt.Errorf("no known registration within %s", registrationTime)
		}
		if len(arrived) > 0 { // more of it may come, but no sooner than that
			if err := waitByte(stream, deadline, &arrived); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				return nil, arrived, err
			}
		}
	}
}

// waitByte waits for one more read.
func waitByte(stream link.Stream, deadline time.Time, arrived *[]byte) error {
	if err := stream.SetReadDeadline(deadline); err != nil {
		return err
	}
	n, err := stream.Read((*arrived)[len(*arrived):cap(*arrived)])
	*arrived = (*arrived)[:len(*arrived)+n]
	return err
}

func (l *Line) registered(arrived []byte) *modem {
	var best *modem
	longest := 0
	for _, m := range l.modems {
		if n := m.matcher.matches(arrived); n > longest {
			best, longest = m, n
		}
	}
	return best
}

// strangers are unknown registrations that have been told.
type strangers struct {
	mu   sync.Mutex
	told map[string]bool
}

func (s *strangers) news(registration string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told[registration] || len(s.told) >= toldStrangers {
		return false
	}
	s.told[registration] = true
	return true
}
