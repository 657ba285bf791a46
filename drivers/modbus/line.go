package modbus

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

// A Line polls the units of one medium, or of the modems that dial in to it.
type Line struct {
	config   Config
	endpoint endpoint
	source   string
	profiles *Profiles
	intake   telemetry.Intake
	logger   *slog.Logger
	metrics  *metrics
	buses    []*bus
	modems   []*modem // of a line that modems dial in to: one for each bus
	told     state    // what was last told of a line that modems dial in to
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
	e, err := parseEndpoint(cfg.Connect)
	if err != nil {
		return nil, fmt.Errorf("modbus line %q: %w", cfg.Name, err)
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	l := &Line{
		config: cfg, endpoint: e, source: "modbus." + cfg.Name, profiles: profiles, intake: intake,
		logger: logger.With("source", "modbus."+cfg.Name), metrics: newMetrics(cfg.Name, reg),
	}
	if !e.listens() {
		l.buses = []*bus{l.newBus(cfg.Name, e, l.config.Units, profiles)}
		return l, nil
	}
	for i := range l.config.Modems {
		c := &l.config.Modems[i]
		b := l.newBus(c.Name, e, c.Units, profiles)
		b.logger = b.logger.With("modem", c.Name)
		l.buses = append(l.buses, b)
		l.modems = append(l.modems, newModem(c, b))
	}
	return l, nil
}

// Run polls until the context ends and then returns nil. It returns an error
// when the line cannot be connected, or when its peer closes the connection
// and no unit answers; before that, the line and its devices are told as not
// connected. A line that modems dial in to ends with an error only when its
// port cannot be listened on. It may be called again after it has returned.
func (l *Line) Run(ctx context.Context) error {
	if l.endpoint.listens() {
		return l.serve(ctx)
	}
	return l.buses[0].run(ctx)
}
