package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
	"haidang/gateway/uplink"
)

// What the uplink keeps with the logs: its positions in both, on the side of the
// field; and how far gateways have pushed here, with the position up to which the log
// need not be read for it any more.
const (
	followUplink = "uplink"
	followGuests = "uplink.taken"
	uplinkEpoch  = "uplink.epoch"
	uplinkTaken  = "uplink.taken"
)

// An uplinks is both sides of pushing; either is nil where it is not configured.
type uplinks struct {
	sender   *uplink.Sender
	receiver *uplink.Receiver
}

// uplinkFollowers are the names of positions in the readings log.
func (c *Configuration) uplinkFollowers() []string {
	var names []string
	if c.Uplink.Sends() {
		names = append(names, followUplink)
	}
	if c.Uplink.Accept {
		names = append(names, followGuests)
	}
	return names
}

// warningFollowers are the names of the followers of the warnings log that begin at
// its end, the recipients of outside among them.
func (c *Configuration) warningFollowers(recipients []string) []string {
	if c.Uplink.Sends() {
		return append(recipients, followUplink)
	}
	return recipients
}

// openUplink makes what pushes, and what takes pushes.
func (g *instance) openUplink(ctx context.Context) (err error) {
	if err := g.openReceiver(ctx); err != nil || !g.cfg.Uplink.Sends() {
		return err
	}
	g.uplinks.sender, err = uplink.NewSender(uplink.Options{
		Config: g.cfg.Uplink, Gateway: g.cfg.Gateway,
		Readings: uplinkLog(g.spool.Readings()), Warnings: uplinkLog(g.spool.Warnings()),
		Lasting: g.centre.Lasting,
		Load:    func(ctx context.Context) ([]byte, error) { return g.spool.LoadCheckpoint(ctx, uplinkEpoch) },
		Save:    func(ctx context.Context, text []byte) error { return g.spool.SaveCheckpoint(ctx, uplinkEpoch, text) },
		State:   g.uplinkState, Registerer: g.reg, Logger: g.logger,
	})
	if err == nil {
		g.onClose(g.uplinks.sender.Close)
	}
	return err
}

// openReceiver makes what takes pushes, where it is configured: of machines with
// roles, on the one that has the part ioc.
func (g *instance) openReceiver(ctx context.Context) (err error) {
	if !g.cfg.Uplink.Accept {
		return nil
	}
	if g.uplinks.receiver, err = uplink.NewReceiver(ctx, g.uplinkDoor()); err == nil {
		g.onClose(g.uplinks.receiver.Close)
	}
	return err
}

// uplinkHandler takes pushes, or is nil.
func (g *instance) uplinkHandler() http.Handler {
	if g.uplinks.receiver == nil {
		return nil
	}
	return g.uplinks.receiver
}

// uplinkLog is a log as the uplink follows it.
func uplinkLog[T any](l *spool.Log[T]) uplink.Log {
	return uplink.Log{
		Last: l.Last, Position: func() uint64 { return l.Position(followUplink) },
		Commit: func(ctx context.Context, seq uint64) error { return l.Commit(ctx, followUplink, seq) },
		Follow: func(ctx context.Context, from uint64, accept func(context.Context, []uplink.Frame) error) error {
			var frames []uplink.Frame
			return l.Follow(ctx, spool.FollowOptions{Name: followUplink, From: from, Manual: true}, func(ctx context.Context, b *spool.Batch[T]) error {
				frames = frames[:0]
				for i := range b.Frames {
					f := &b.Frames[i]
					frames = append(frames, uplink.Frame{Seq: f.Seq, Received: f.Received, Lines: f.Lines})
				}
				return accept(ctx, frames)
			})
		},
	}
}

// uplinkState is how this gateway is.
func (g *instance) uplinkState() uplink.State {
	stored, bound := g.spool.Room()
	return uplink.State{Version: version, Accepted: float64(g.intake.Total()), SpoolBytes: float64(stored), SpoolMax: float64(bound)}
}

// uplinkDoor is what pushes come into.
func (g *instance) uplinkDoor() uplink.Door {
	d := uplink.Door{
		Gateway: g.cfg.Gateway,
		Decode: func(lines []byte) ([]telemetry.Reading, error) {
			return spool.NewLineDecoder().Decode(nil, lines)
		},
		Grows: func(r *telemetry.Reading) int {
			if d := g.intake.Known().Devices.Device(r.Device); d != nil {
				return len(d.Site)
			}
			return len(r.Device)
		},
		Receive: g.intake.Receive, Accept: g.intake.Accept, SetAside: g.intake.SetAside,
		Step: g.stepOfGuest,
		End: func(ctx context.Context, gateway string, but map[string]bool) error {
			return g.centre.forget(ctx, gateway, g.now(), but)
		},
		Stands: func(id string) bool {
			w, known := g.centre.Warning(id)
			return known && w.State != telemetry.Cleared
		},
		PartitionOf: func(site string) int { return spool.PartitionOf(site, g.spool.Partitions()) },
		Shared:      g.cfg.Spool.URL != "",
		Load:        func(ctx context.Context) ([]byte, error) { return g.spool.LoadCheckpoint(ctx, uplinkTaken) },
		Save:        func(ctx context.Context, text []byte) error { return g.spool.SaveCheckpoint(ctx, uplinkTaken, text) },
		Started:     func() bool { return g.started(context.Background()) == nil },
		Now:         time.Now, Registerer: g.reg, Logger: g.logger,
	}
	for n := range g.spool.Partitions() {
		d.Partitions = append(d.Partitions, uplinkPartition(g.spool.ReadingsOf(n)))
	}
	return d
}

// uplinkPartition is a partition of the readings as pushes come into it.
func uplinkPartition(log *spool.Log[telemetry.Reading]) uplink.Partition {
	return uplink.Partition{
		Append:    log.AppendOnce,
		Unwritten: func(err error) bool { return errors.Is(err, spool.ErrFull) || errors.Is(err, spool.ErrClosed) },
		There: func(err error) (uint64, bool) {
			there, is := errors.AsType[*spool.ThereError](err)
			if !is {
				return 0, false
			}
			return there.Seq, true
		},
		Scan: func(ctx context.Context, from uint64, each func([]telemetry.Reading, func() ([]telemetry.Reading, error))) error {
			return scanUplink(ctx, log, from, each)
		},
		Last:   log.Last,
		Commit: func(ctx context.Context, seq uint64) error { return log.Commit(ctx, followGuests, seq) },
	}
}

// stepOfGuest writes steps of warnings of another gateway, as they come here. Where the
// device is registered, the site is the registry's.
func (g *instance) stepOfGuest(ctx context.Context, steps []telemetry.Transition) error {
	now, known := g.now(), g.intake.Known().Devices
	for i := range steps {
		steps[i].At = now
		if d := known.Device(steps[i].Device); d != nil {
			steps[i].Site = d.Site
		}
	}
	return g.centre.Step(ctx, steps)
}

// scanUplink reads the records of pushes out of a log, from a frame on.
func scanUplink(ctx context.Context, log *spool.Log[telemetry.Reading], from uint64, each func(records []telemetry.Reading, frame func() ([]telemetry.Reading, error))) error {
	last := log.Last()
	if from > last {
		return nil
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	read := uint64(0)
	err := log.Follow(ctx, spool.FollowOptions{From: from}, func(_ context.Context, b *spool.Batch[telemetry.Reading]) error {
		for i := range b.Frames {
			f := &b.Frames[i]
			if f.Seq <= read || f.Seq > last {
				continue
			}
			read = f.Seq
			var records []telemetry.Reading
			for _, line := range linesOfKind(f.Lines, telemetry.KindUplink) {
				more, err := spool.NewLineDecoder().Decode(nil, line)
				if err != nil {
					return &spool.DamagedFrame{Seq: f.Seq, Err: err}
				}
				records = append(records, more...)
			}
			if len(records) > 0 {
				kept := *f
				kept.Lines = bytes.Clone(f.Lines) // the batch is ours for this call only
				each(records, kept.Records)
			}
		}
		if b.Last() >= last {
			read = last
			stop()
		}
		return nil
	})
	if err == nil && read < last {
		err = fmt.Errorf("read the log from frame %d: ended at frame %d of %d: %w", from, read, last, context.Cause(ctx))
	}
	return err
}

// linesOfKind returns the lines of a frame that are of a kind.
func linesOfKind(lines []byte, kind string) (out [][]byte) {
	for line := range bytes.Lines(lines) {
		if rest, is := bytes.CutPrefix(line, []byte(kind)); is && rest[0] == ',' {
			out = append(out, line)
		}
	}
	return out
}

// followUplinks pushes, and keeps what is known of those that push.
func (g *instance) followUplinks(ctx context.Context, group *errgroup.Group) {
	if r := g.uplinks.receiver; r != nil {
		group.Go(func() error { return r.Run(ctx) })
	}
	if s := g.uplinks.sender; s != nil {
		group.Go(func() error { return s.Run(ctx) })
	}
}

// validateUplink reports faults of the uplink.
func (c *Configuration) validateUplink() []telemetry.Fault {
	return telemetry.Under("uplink", c.Uplink.Validate())
}

// An uplinkHealth is how pushing to the centre goes.
type uplinkHealth struct {
	Connected bool   `json:"connected"`
	Centre    string `json:"centre,omitempty"`
	Why       string `json:"why,omitempty"` // it is not connected
}

// uplinkHealths are both sides.
func (g *instance) uplinkHealths() (*uplinkHealth, []uplink.Guest) {
	var up *uplinkHealth
	if s := g.uplinks.sender; s != nil {
		up = &uplinkHealth{}
		up.Connected, up.Centre, up.Why = s.Connected()
	}
	if r := g.uplinks.receiver; r != nil {
		return up, r.Guests()
	}
	return up, nil
}

// uplinkLines write both sides for a person, in columns.
func (h *health) uplinkLines(now time.Time) (out []string) {
	if up := h.Uplink; up != nil {
		word := "connected"
		if !up.Connected {
			word = "NOT CONNECTED, all is kept for it"
		}
		out = append(out, fmt.Sprintf("uplink\t%s\t%s\t%s", plain(up.Centre), word, plain(up.Why)))
	}
	for _, one := range h.Gateways {
		word := "up to date"
		if one.LagFrames > 0 {
			word = fmt.Sprintf("%.0f frames, %s behind", one.LagFrames, telemetry.Duration(time.Duration(one.LagSeconds)*time.Second))
		}
		heard := telemetry.Duration(now.Sub(one.Heard).Round(time.Second))
		out = append(out, fmt.Sprintf("gateway\t%s\t%s\theard %s ago, version %s", plain(one.Gateway), word, heard, plain(one.Version)))
	}
	return out
}
