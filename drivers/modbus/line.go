package modbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	goburrow "github.com/goburrow/modbus"
	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

const (
	maxBackoff      = 5 * time.Minute        // of a unit that does not answer
	maxBackoffSlots = 10                     // the same, in its intervals
	maxStagger      = 100 * time.Millisecond // between the first polls of two units
	idleClose       = 30 * time.Second       // a longer pause is not worth a connection
)

// A medium carries request frames to the units of a line and brings back the
// answer to each.
type medium interface {
	// Open connects; its error means that the line is lost.
	Open(ctx context.Context) error
	// Exchange returns a checked answer or an exception. It opens the medium
	// where it is closed, and closes it on every error.
	Exchange(ctx context.Context, request []byte) ([]byte, error)
	Close()
}

// A framing wraps requests for one medium and unit.
type framing struct {
	goburrow.Packager
	address func(unit byte)
}

// tcpFraming counts its transactions over all units and connections, so that a
// late answer never has the number of the request that waits.
func tcpFraming() framing {
	handler := goburrow.NewTCPClientHandler("") // for its packager; its transporter stays unused
	return framing{handler, func(unit byte) { handler.SlaveId = unit }}
}

// A Line polls the units of one medium.
type Line struct {
	config  Config
	source  string
	intake  telemetry.Intake
	logger  *slog.Logger
	metrics *metrics
	medium  medium
	framing framing
	units   []*unit
	devices []*device
	told    link // what was last told of the line itself
}

// New makes a line. The configuration must be free of faults. A nil reg or
// logger is silent. One registry takes one line of a name.
func New(cfg Config, profiles *Profiles, intake telemetry.Intake, reg prometheus.Registerer, logger *slog.Logger) (*Line, error) {
	if faults := cfg.Validate(profiles); len(faults) > 0 {
		sentences := make([]string, len(faults))
		for i, f := range faults {
			sentences[i] = f.String()
		}
		return nil, fmt.Errorf("modbus line %q: %s", cfg.Name, strings.Join(sentences, "; "))
	}
	if cfg.Interval == 0 {
		cfg.Interval = telemetry.Duration(DefaultInterval)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = telemetry.Duration(DefaultTimeout)
	}
	address, err := tcpAddress(cfg.Connect)
	if err != nil {
		return nil, fmt.Errorf("modbus line %q: %w", cfg.Name, err)
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	l := &Line{
		config: cfg, source: "modbus." + cfg.Name, intake: intake,
		logger:  logger.With("source", "modbus."+cfg.Name),
		metrics: newMetrics(cfg.Name, reg),
		framing: tcpFraming(),
	}
	l.medium = newTCP(address, cfg.Timeout.Std(), l.metrics)
	byName := map[string]*device{}
	for i := range cfg.Units {
		u := newUnit(&cfg.Units[i], cfg.Interval.Std(), profiles.Profile(cfg.Units[i].Profile))
		l.units = append(l.units, u)
		d := byName[u.config.Device]
		if d == nil {
			d = &device{id: u.config.Device}
			byName[d.id] = d
			l.devices = append(l.devices, d)
		}
		d.units = append(d.units, u)
		u.device = d
	}
	return l, nil
}

// Run polls until the context ends and then returns nil. It returns an error
// when the line cannot be connected, or when its peer closes the connection
// and no unit answers; before that, the line and its devices are told as not
// connected. It may be called again after it has returned.
func (l *Line) Run(ctx context.Context) error {
	defer l.medium.Close()
	if err := l.medium.Open(ctx); err != nil {
		l.metrics.failures[reasonConnect].Inc()
		return l.lost(ctx, err)
	}
	l.tell(l.toldUp())
	l.begin(time.Now())
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		u := l.next()
		wait := time.Until(u.due)
		if wait > idleClose {
			l.medium.Close() // devices of few connections, and gateways that drop idle ones
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		err := l.poll(ctx, u)
		if ctx.Err() != nil {
			return nil
		}
		if l.isLost(err) {
			return l.lost(ctx, err)
		}
		l.metrics.missed.Add(float64(u.reschedule(time.Now(), err != nil)))
	}
}

// begin makes every unit due, staggered a little.
func (l *Line) begin(now time.Time) {
	stagger := min(maxStagger, l.config.Interval.Std()/time.Duration(len(l.units)))
	for i, u := range l.units {
		u.link, u.failures = unknown, 0
		u.due = now.Add(time.Duration(i) * stagger)
	}
}

// next returns the unit that is due first.
func (l *Line) next() *unit {
	first := l.units[0]
	for _, u := range l.units[1:] {
		if u.due.Before(first.due) {
			first = u
		}
	}
	return first
}

// isLost tells a lost line from a unit that failed.
func (l *Line) isLost(err error) bool {
	var connect *connectError
	if errors.As(err, &connect) {
		return true
	}
	if err == nil || reasonOf(err) != reasonClosed {
		return false
	}
	for _, u := range l.units {
		if u.link != down {
			return false
		}
	}
	return true
}

func (l *Line) lost(ctx context.Context, cause error) error {
	if ctx.Err() != nil {
		return nil
	}
	var readings []telemetry.Reading
	for _, d := range l.devices {
		if d.told != down {
			d.told = down
			readings = append(readings, telemetry.Link(d.id, false, cause))
		}
	}
	if l.told != down {
		l.told = down
		readings = append(readings, telemetry.Link(l.config.Name, false, cause))
	}
	l.tell(readings)
	return fmt.Errorf("modbus line %q: %w", l.config.Name, cause)
}

func (l *Line) toldUp() []telemetry.Reading {
	if l.told == up {
		return nil
	}
	l.told = up
	return []telemetry.Reading{telemetry.Link(l.config.Name, true, nil)}
}

func (l *Line) tell(readings []telemetry.Reading) {
	if len(readings) > 0 {
		l.intake.Accept(l.source, readings, nil)
	}
}
