package main

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"haidang/gateway/telemetry"
	"haidang/gateway/vitals"
)

// How often the gateway writes what it knows of itself, and of its devices: of
// many devices less often, at most some 17 points a second.
const (
	vitalsEvery     = 10 * time.Second
	vitalsPerDevice = 60 * time.Millisecond
	vitalsTimeout   = 5 * time.Second
)

// A selfWatch writes the gateway's own measurements into the store.
type selfWatch struct {
	g       *instance
	dropped prometheus.Counter
	devices time.Time // when those of the devices were written last
	failing bool      // said once
	logger  *slog.Logger
}

func newSelfWatch(g *instance) *selfWatch {
	return &selfWatch{g: g, logger: g.logger, dropped: promauto.With(g.reg).NewCounter(prometheus.CounterOpts{
		Name: "haidang_vitals_dropped_total",
		Help: "Times that the store did not take the gateway's own measurements; they are not sent again.",
	})}
}

// run writes until ctx ends.
func (s *selfWatch) run(ctx context.Context) error {
	tick := time.NewTicker(vitalsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := s.write(ctx); err != nil && ctx.Err() == nil {
			s.dropped.Inc()
			if !s.failing {
				s.logger.Warn("the store does not take the gateway's own measurements", "error", err)
			}
			s.failing = true
		} else {
			s.failing = false
		}
	}
}

// write writes one point of each series.
func (s *selfWatch) write(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, vitalsTimeout)
	defer cancel()
	now := time.Now()
	h, err := s.g.health(ctx)
	if err != nil {
		return err
	}
	count := len(s.g.intake.Known().Devices.Devices())
	var lines []byte
	silent := -1
	if now.Sub(s.devices) >= max(vitalsEvery/2, time.Duration(count)*vitalsPerDevice) {
		lines, silent = s.g.deviceLines(lines, now)
		s.devices = now
	}
	lines = s.g.gatewayLines(lines, &h, count, silent, now)
	err = s.g.store.Write(ctx, lines)
	if rejection, ok := errors.AsType[*telemetry.Rejection](err); ok {
		return rejection
	}
	return err
}

// gatewayLines are the gateway's own figures; silent is below 0 when the devices
// were not looked at.
func (g *instance) gatewayLines(dst []byte, h *health, devices, silent int, now time.Time) []byte {
	line := func(measurement string) *vitals.Line { return vitals.NewLine(measurement, h.Gateway, h.Gateway) }
	aside := 0.0
	for _, reason := range slices.Sorted(maps.Keys(h.SetAside)) {
		aside += h.SetAside[reason]
		dst = line(vitals.SetAside).Tag("reason", reason).Number("letters_total", h.SetAside[reason]).AppendTo(dst, now)
	}
	self := line(vitals.Gateway).
		Number("readings_total", h.Readings).Number("set_aside_total", aside).
		Number("memory_bytes", h.MemoryBytes).Number("uptime_s", now.Sub(h.Started).Seconds()).
		Number("devices", float64(devices)).Number("warnings", float64(len(g.centre.Warnings(false)))).
		Number("ready", truth(h.Ready))
	if h.DiskFreeBytes > 0 { // of the embedded store only
		self.Number("disk_free_bytes", h.DiskFreeBytes)
	}
	if silent >= 0 {
		self.Number("silent", float64(silent))
	}
	dst = self.AppendTo(dst, now)
	for _, s := range h.Sources {
		dst = line(vitals.Source).Tag("source", s.Name).Number("running", truth(s.Running)).Number("restarts_total", s.Restarts).AppendTo(dst, now)
	}
	for _, f := range h.Followers {
		dst = line(vitals.Follower).Tag("log", f.Log).Tag("follower", f.Name).
			Number("lag_frames", f.LagFrames).Number("lag_s", f.LagSeconds).
			Number("retries_total", f.Retries).Number("dropped_total", f.Dropped).AppendTo(dst, now)
	}
	for _, r := range h.Recipients {
		dst = line(vitals.Recipient).Tag("recipient", r.Name).
			Number("delivered_total", r.Delivered).Number("failed_total", r.Failed).Number("waiting_s", r.WaitingFor).AppendTo(dst, now)
	}
	return dst
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// deviceLines are how the registered devices are, and the number of those that
// are silent.
func (g *instance) deviceLines(dst []byte, now time.Time) (_ []byte, silent int) {
	worst := map[string]telemetry.Severity{}
	for _, w := range g.centre.Warnings(false) {
		if w.State != telemetry.Pending && !w.Shadow {
			worst[w.Device] = max(worst[w.Device], w.Severity)
		}
	}
	for _, known := range g.intake.Known().Devices.Devices() {
		any, ok := g.device(known.ID)
		d, is := any.(deviceState)
		if !ok || !is {
			continue
		}
		state, quiet := float64(vitals.Well), d.rank == rankSilent || d.Heard == nil
		if quiet {
			state = vitals.Silent
			silent++
		}
		if severity := worst[d.ID]; severity > 0 {
			state = float64(severity)
		}
		line := vitals.NewLine(vitals.Device, d.ID, d.Site).Number("state", state).Number("silent", truth(quiet)).Number("severity", float64(worst[d.ID])).
			Word("name", d.Name).Word("owner", d.Owner)
		if d.Heard != nil {
			line.Number("heard_ago_s", now.Sub(*d.Heard).Seconds())
		}
		if known.Interval > 0 {
			line.Number("interval_s", known.Interval.Std().Seconds())
		}
		if lat, lon, ok := d.whereabouts(); ok {
			line.Number("lat", lat).Number("lon", lon)
		}
		d.addAlarms(line, &known, quiet)
		problem := ""
		if len(d.Problems) > 0 {
			problem = d.Problems[0]
		}
		dst = line.Word("problem", problem).AppendTo(dst, now)
	}
	return dst, silent
}

// What alarm levels are of.
const (
	riverKind  = "river"
	levelValue = "level_m"
)

// addAlarms adds the alarm levels of a river station, and while it reports what of
// them its newest level has reached; a level that is bad counts for nothing.
func (d *deviceState) addAlarms(line *vitals.Line, known *telemetry.Device, quiet bool) {
	newest := d.Latest[riverKind]
	level, measured := newest.Values[levelValue].(float64)
	if quiet || newest.Quality[levelValue] == telemetry.Bad.String() {
		measured = false
	}
	levels, reached := 0, 0
	for i, name := range vitals.Alarms() {
		fact, _ := known.Fact(name)
		alarm, ok := fact.(float64)
		if !ok {
			continue
		}
		line.Number(name, alarm)
		if levels++; level >= alarm {
			reached = i + 1
		}
	}
	if levels > 0 && measured {
		line.Number(levelValue, level).Number("alarm", float64(reached))
	}
}

// whereabouts are the newest position of a vessel, else the registered place.
func (d *deviceState) whereabouts() (lat, lon float64, ok bool) {
	if at, heard := d.Latest[telemetry.KindPosition]; heard {
		lat, one := at.Values["lat"].(float64)
		lon, two := at.Values["lon"].(float64)
		if one && two {
			return lat, lon, true
		}
	}
	if d.Lat != nil && d.Lon != nil {
		return *d.Lat, *d.Lon, true
	}
	return 0, 0, false
}
