package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
)

func runVerb() verb {
	var file, dir string
	var roles []string
	return verb{
		name: "run", args: "[--config gateway.yaml] [--data DIR] [--roles LIST]",
		short: "run the gateway until Ctrl-C; without a configuration everything is embedded, on loopback",
		example: `haidang run
mosquitto_pub -q 1 -t telemetry/kim-long/river -m '{"level_m":3.62}'
curl http://127.0.0.1:8080/api/v1/warnings`,
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&file, "config", "", "the configuration; SIGHUP reads its rules and devices again")
			f.StringVar(&dir, "data", "", "folder of everything that is kept (default: that of the configuration, else ./haidang-data)")
			f.StringSliceVar(&roles, "roles", nil, "what this machine of a centre does: some of ingest,rules,store,ioc,console (default: roles of the configuration, else everything)")
		},
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) > 0 {
				return usagef("run takes no arguments, only flags: %q", args)
			}
			change := func(c *Configuration) {
				if dir != "" {
					c.Data = dir
				}
				if len(roles) > 0 {
					c.Roles = roles
				}
			}
			cfg, w, err := readConfiguration(file, change)
			if err != nil {
				return err
			}
			if faults := cfg.withoutRoles(); len(faults) > 0 {
				return w.doc.Locate(faults)
			}
			logger := newLogger(env.stderr, cfg.Log)
			load := func() (Configuration, *world, error) { return readConfiguration(file, change) }
			if len(cfg.Roles) > 0 {
				return serveRoles(ctx, env, cfg, w, load, logger)
			}
			return serve(ctx, env, cfg, w, load, logger)
		},
	}
}

// serve runs a gateway and says where it is to be found.
func serve(ctx context.Context, env environment, cfg Configuration, w *world, load func() (Configuration, *world, error), logger *slog.Logger) error {
	g, err := open(ctx, cfg, w, mode{}, logger)
	if err != nil {
		return ended(ctx, err)
	}
	g.load = load
	fmt.Fprintf(env.stdout, "Hải Đăng %s\n  MQTT      %s\n", version, cfg.Broker.Listen)
	if at := g.store.Addr(); at != nil {
		fmt.Fprintf(env.stdout, "  InfluxDB  %s://%s/query?db=haidang\n", scheme(cfg.Influx.TLS.Cert), at)
	}
	fmt.Fprintf(env.stdout, "  console   %s://%s/\n  data      %s\n", scheme(cfg.Console.TLS.Cert), g.console.Addr(), cfg.Data)
	return g.run(ctx, func(ctx context.Context, group *errgroup.Group) {
		if manager := newNotifier(logger); manager != nil {
			group.Go(func() error { return manager.run(ctx, g.ready, func() { g.clock.Now(); g.centre.Warnings(false) }) })
		}
		g.live(ctx, group, env.reload)
	})
}
