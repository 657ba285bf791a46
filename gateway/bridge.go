package main

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"haidang/drivers/bridge"
	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// openBridges makes the bridges and the sources that they are. Each reads payloads
// as the broker does.
func (g *instance) openBridges() {
	if len(g.cfg.Bridges) == 0 {
		return
	}
	metrics := bridge.NewMetrics(g.reg)
	for _, c := range g.cfg.Bridges {
		b := bridge.New(c, g.cfg.Gateway, g.intake, metrics, func(command func(string, []byte)) bridge.Reader { return g.broker.Reader(command) })
		g.onClose(b.Close)
		if len(c.Subscribe) > 0 {
			g.sources = append(g.sources, source{name: b.Source(), link: c.Name, run: b.Run})
		}
		if c.Follower() != "" {
			g.bridges = append(g.bridges, forwarding{follower: c.Follower(), to: b})
		}
	}
}

// A forwarding is a bridge that follows the readings.
type forwarding struct {
	follower string
	to       *bridge.Bridge
}

// bridgeFollowers are the names of the bridges' positions in the readings log.
func (c *Configuration) bridgeFollowers() []string {
	var names []string
	for i := range c.Bridges {
		if name := c.Bridges[i].Follower(); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// followBridges forwards the readings as they are appended.
func (g *instance) followBridges(ctx context.Context, group *errgroup.Group) {
	for _, f := range g.bridges {
		group.Go(func() error {
			return g.spool.Readings().Follow(ctx, spool.FollowOptions{Name: f.follower}, func(ctx context.Context, b *spool.Batch[telemetry.Reading]) error {
				for i := range b.Frames {
					readings, err := b.Frames[i].Records()
					if err != nil {
						return err
					}
					if err := f.to.Forward(ctx, readings, b.Frames[i].Received, g.now()); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
}

// validateBridges reports faults of the bridges; names are those of sources, which
// are told apart by them.
func (c *Configuration) validateBridges(names map[string]string) []telemetry.Fault {
	var faults []telemetry.Fault
	for i := range c.Bridges {
		at := fmt.Sprintf("bridges[%d]", i)
		faults = append(faults, telemetry.Under(at, c.Bridges[i].Validate())...)
		faults = append(faults, unique(names, c.Bridges[i].Name, at)...)
	}
	return faults
}
