package main

import (
	"context"
	"os"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"haidang/gateway/demo"
	"haidang/gateway/telemetry"
)

func demoVerb() verb {
	var dir string
	var speed float64
	return verb{
		name: "demo", args: "[--data DIR]",
		short: "run with a simulated field: stations, boats and an operations centre that speak the real protocols",
		example: `haidang demo
curl 'http://127.0.0.1:8080/api/v1/warnings'`,
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&dir, "data", "haidang-data", "folder of everything that is kept; a second start goes on from it")
			f.Float64Var(&speed, "speed", 1, "of the story: at 1 a flood passes every 90 s")
		},
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) > 0 {
				return usagef("demo takes no arguments, only flags: %q", args)
			}
			if !(speed > 0 && speed <= 20) {
				return usagef("--speed %v is not above 0 and at most 20", speed)
			}
			return runDemo(ctx, env, dir, speed, demo.DefaultAddresses())
		},
	}
}

// runDemo runs gateway and field at these addresses.
func runDemo(ctx context.Context, env environment, dir string, speed float64, at demo.Addresses) error {
	cfg, w, err := loadConfiguration(folder{inside: demo.Files}, "gateway.yaml", func(c *Configuration) {
		c.Data = dir
		c.Broker.Listen, c.Console.Listen, c.Influx.Listen = at.MQTT, at.Console, at.Influx
		c.AIS[0].Connect, c.Modbus[0].Connect = "listen://"+at.NMEA, "tcp://"+at.Modbus
		c.IOC[0].Webhook.URL = "http://" + at.IOC + "/warnings"
	})
	if err != nil {
		return err
	}
	var g *instance
	terminal := demo.Terminal{}
	if file, ok := env.stdout.(*os.File); ok {
		terminal = demo.TerminalOf(file)
	}
	view, err := demo.NewView(env.stdout, terminal, at, func() demo.Stats { return g.demoStats() })
	if err != nil {
		return err
	}
	logger := newLogger(view, cfg.Log)
	field, err := demo.New(demo.Config{Addresses: at, Speed: speed}, view.Received, logger)
	if err != nil {
		return err
	}
	if g, err = open(ctx, cfg, w, mode{}, logger); err != nil {
		_ = field.Close() // nothing has run; the first error is the one to tell
		return ended(ctx, err)
	}
	return g.run(ctx, func(ctx context.Context, group *errgroup.Group) {
		g.live(ctx, group, nil)
		group.Go(func() error { return field.Run(ctx) })
		group.Go(func() error { return view.Run(ctx) })
	})
}

// boatsHeardWithin is how recent a position must be for its boat to count.
const boatsHeardWithin = 15 * time.Second

func (g *instance) demoStats() demo.Stats {
	stats := demo.Stats{
		ReadingsTotal:  g.intake.Total(),
		ActiveWarnings: len(g.centre.Warnings(false)),
		BoatsHeard:     g.intake.HeardSince(telemetry.KindPosition, time.Now().Add(-boatsHeardWithin)),
	}
	if h, ok := g.intake.HeardOf("demo-kim-long"); ok {
		for _, l := range h.Latest {
			r := telemetry.Reading{Values: l.Values}
			if level, ok := r.Number("level_m"); ok {
				stats.LevelM = &level
			}
		}
	}
	return stats
}
