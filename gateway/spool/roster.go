package spool

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A Roster tells who has which part of the log in a cluster. It writes nothing but
// what Present puts down, and is safe for concurrent use.
type Roster struct {
	instance string // one life of the Roster
	since    time.Time

	where string
	conn  *nats.Conn
	js    jetstream.JetStream
}

// rosterAtOnce bounds how many leases are asked for at the same time.
const rosterAtOnce = 8

// OpenRoster connects to the cluster of the configuration. It fails when the
// cluster cannot be reached; a connection that is lost later is restored by
// itself.
func OpenRoster(ctx context.Context, config Config, logger *slog.Logger) (*Roster, error) {
	if config.URL == "" {
		return nil, errors.New("there is no roster of an embedded log: spool.url is not set")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if logger == nil {
		logger = slog.Default()
	}
	options := append(config.access("haidang roster"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		logger.Warn("the roster's connection", "error", err)
	}))
	r := &Roster{instance: rand.Text(), since: time.Now().UTC(), where: redact(config.URL)}
	var err error
	if r.conn, r.js, err = connect(config.URL, options); err != nil {
		return nil, fmt.Errorf("the log at %s: %w", r.where, explain(err, ""))
	}
	return r, nil
}

// Holders returns who has a lease now, by its name: gateway for a gateway that has
// everything, else Part.String, and ingest.<name> for each machine that takes
// readings. Who ended without a word stays there for up to ten seconds. It is empty
// before the first gateway; it fails when the cluster does not answer.
func (r *Roster) Holders(ctx context.Context) (map[string]Holder, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	held := map[string]Holder{}
	stream, err := r.js.Stream(ctx, streamOwners)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return held, nil
	}
	var leases []string
	if err == nil {
		leases, err = leasesOf(ctx, stream)
	}
	if err != nil {
		return nil, r.fault(err)
	}
	var mu sync.Mutex
	var group sync.WaitGroup
	places := make(chan struct{}, rosterAtOnce)
	for _, lease := range leases {
		places <- struct{}{}
		group.Go(func() {
			defer func() { <-places }()
			one, _, e := holderOf(ctx, stream, ownerPrefix+lease)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case e == nil:
				held[lease] = one
			case !errors.Is(e, jetstream.ErrMsgNotFound): // it has just ended
				err = e
			}
		})
	}
	group.Wait()
	if err != nil {
		return nil, r.fault(err)
	}
	return held, nil
}

func (r *Roster) fault(err error) error {
	return fmt.Errorf("ask the log at %s who has which part: %w", r.where, explain(err, ""))
}

// Close ends the connection.
func (r *Roster) Close() { r.conn.Close() }

// leasesOf returns the names of the leases that are held.
func leasesOf(ctx context.Context, stream jetstream.Stream) ([]string, error) {
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(ownerPrefix+">"))
	if err != nil {
		return nil, err
	}
	var leases []string
	for subject := range info.State.Subjects {
		leases = append(leases, strings.TrimPrefix(subject, ownerPrefix))
	}
	return leases, nil
}
