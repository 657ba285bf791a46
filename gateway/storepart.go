package main

import (
	"context"

	"haidang/gateway/console"
	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// keepReadings is the part store: the readings of one partition go to the InfluxDB
// elsewhere. What is written twice after a takeover is the same point.
func (m *machine) keepReadings(ctx context.Context, s *spool.Spool, _ console.Registry) error {
	m.follows(spool.Part{Role: roleStore, Partition: partitionHeld(s)}, func() uint64 { return s.Readings().Lag(followStore) })
	return s.Readings().Follow(ctx, spool.FollowOptions{Name: followStore}, func(ctx context.Context, b *spool.Batch[telemetry.Reading]) error {
		return b.FromStore(m.store.Write(ctx, b.StoreLines()))
	})
}
