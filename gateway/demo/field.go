package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"haidang/gateway/telemetry"
)

// Addresses are the ports of the demo, each as host:port. The gateway listens
// on MQTT, NMEA, Console and Influx; the field listens on Modbus and IOC.
type Addresses struct {
	MQTT    string
	NMEA    string
	Modbus  string
	IOC     string
	Console string
	Influx  string
}

// DefaultAddresses returns the addresses that the demo's gateway.yaml says.
func DefaultAddresses() Addresses {
	return Addresses{
		MQTT:    "127.0.0.1:1883",
		NMEA:    "127.0.0.1:10110",
		Modbus:  "127.0.0.1:5020",
		IOC:     "127.0.0.1:8090",
		Console: "127.0.0.1:8080",
		Influx:  "127.0.0.1:8086",
	}
}

// Config is what a Field needs to know.
type Config struct {
	// Addresses of the gateway and of the field's own listeners. An empty one is
	// the default; port 0 for the field's own means any free port.
	Addresses Addresses
	// Secret of the webhook, which the operations centre verifies; "" is
	// DefaultSecret.
	Secret string
	// Seed of the small differences between runs.
	Seed uint64
	// Speed of the story; 0 and 1: a storm every 90 s. The stations go on
	// reporting twice a second.
	Speed float64
}

// A Field is the simulated field.
type Field struct {
	config  Config
	centre  *centre
	modbus  *ModbusServer
	devices []telemetry.Device
	logger  *slog.Logger
}

// New binds the field's own listeners, so that an occupied port is known before
// anything runs. received is called with each warning that the operations centre
// takes, once for each transition, from several goroutines; it may be nil.
func New(cfg Config, received func(telemetry.Warning), logger *slog.Logger) (*Field, error) {
	cfg = cfg.withDefaults()
	if cfg.Speed < 0 || !telemetry.Finite(cfg.Speed) {
		return nil, fmt.Errorf("speed %v of the demo is not above 0", cfg.Speed)
	}
	if received == nil {
		received = func(telemetry.Warning) {}
	}
	list, err := devices()
	if err != nil {
		return nil, err
	}
	centre, err := newCentre(cfg.Addresses.IOC, cfg.Secret, received, logger)
	if err != nil {
		return nil, err
	}
	modbus, err := NewModbusServer(cfg.Addresses.Modbus)
	if err != nil {
		return nil, errors.Join(err, centre.listener.Close())
	}
	first := storm{seed: cfg.Seed, speed: cfg.Speed}.weatherRegisters(0)
	modbus.Set(weatherUnit, weatherRegister, first...)
	cfg.Addresses.IOC = centre.listener.Addr().String()
	cfg.Addresses.Modbus = modbus.Addr().String()
	return &Field{config: cfg, centre: centre, modbus: modbus, devices: list, logger: logger}, nil
}

func (c Config) withDefaults() Config {
	def := DefaultAddresses()
	for _, p := range []struct {
		have *string
		def  string
	}{
		{&c.Addresses.MQTT, def.MQTT}, {&c.Addresses.NMEA, def.NMEA}, {&c.Addresses.Modbus, def.Modbus},
		{&c.Addresses.IOC, def.IOC}, {&c.Addresses.Console, def.Console}, {&c.Addresses.Influx, def.Influx},
	} {
		if *p.have == "" {
			*p.have = p.def
		}
	}
	if c.Secret == "" {
		c.Secret = DefaultSecret
	}
	if c.Speed == 0 {
		c.Speed = 1
	}
	return c
}

// Addresses returns the addresses in use, those of the field's own listeners
// with the ports that they got.
func (f *Field) Addresses() Addresses { return f.config.Addresses }

// Run lets the field live until ctx ends, and returns nil then, after every
// connection is closed and every goroutine has ended. It may be called once.
func (f *Field) Run(ctx context.Context) error {
	s := storm{seed: f.config.Seed, speed: f.config.Speed}
	fleet, err := newFleet(f.devices, s)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	start := time.Now()
	weather := &weatherStation{server: f.modbus, storm: s, start: start}
	feeder := newFeeder(f.config.Addresses.NMEA, s, fleet, start, f.logger)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.centre.run(ctx) })
	g.Go(func() error { return f.modbus.Run(ctx) })
	g.Go(func() error { return weather.run(ctx) })
	g.Go(func() error { return feeder.run(ctx) })
	for _, st := range stations(f.config.Addresses.MQTT, s, start, f.logger) {
		g.Go(func() error { return st.run(ctx) })
	}
	return g.Wait()
}

// Close gives the listeners back when Run is not called.
func (f *Field) Close() error {
	return errors.Join(f.centre.listener.Close(), f.modbus.Close())
}
