package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"
)

const (
	feederStep   = 100 * time.Millisecond
	dialTimeout  = 3 * time.Second
	writeTimeout = 5 * time.Second
	redialAfter  = 500 * time.Millisecond
)

// A feeder is the AIS receiver on the coast: it hears the fleet and sends the
// sentences to the gateway. What it hears while the line is down is lost, as it
// is on the air.
type feeder struct {
	address     string
	storm       storm
	fleet       []boat
	start       time.Time
	transponder *transponder
	positionDue []time.Duration // since the start, by boat
	staticDue   []time.Duration
	logger      *slog.Logger
}

func newFeeder(address string, s storm, fleet []boat, start time.Time, logger *slog.Logger) *feeder {
	fd := &feeder{address: address, storm: s, fleet: fleet, start: start, transponder: newTransponder(), logger: logger}
	for i := range fleet {
		fd.positionDue = append(fd.positionDue, fleet[i].offset)
		// The first static reports are spread over the first second.
		fd.staticDue = append(fd.staticDue, time.Duration(i)*time.Second/time.Duration(len(fleet)))
	}
	return fd
}

// run connects to the gateway, again and again, and feeds it until ctx ends. The
// error is errUnsendable.
func (fd *feeder) run(ctx context.Context) error {
	dialer := net.Dialer{Timeout: dialTimeout}
	for ctx.Err() == nil {
		conn, err := dialer.DialContext(ctx, "tcp", fd.address)
		if err == nil {
			err = fd.feed(ctx, conn)
			conn.Close()
			if errors.Is(err, errUnsendable) {
				return err
			}
			if err != nil && ctx.Err() == nil {
				fd.logger.Warn("the AIS receiver lost the gateway", "address", fd.address, "error", err)
			}
		}
		sleep(ctx, redialAfter)
	}
	return nil
}

// feed writes what is due, ten times a second.
func (fd *feeder) feed(ctx context.Context, conn net.Conn) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	tick := time.NewTicker(feederStep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := time.Now()
		sentences, err := fd.due(nil, now.Sub(fd.start), now)
		if err != nil {
			return err
		}
		if len(sentences) == 0 {
			continue
		}
		if err := conn.SetWriteDeadline(now.Add(writeTimeout)); err != nil {
			return fmt.Errorf("set the deadline of the AIS line: %w", err)
		}
		if _, err := conn.Write(sentences); err != nil {
			return fmt.Errorf("send AIS sentences: %w", err)
		}
	}
}

// due appends the sentences that are due since the start.
func (fd *feeder) due(dst []byte, since time.Duration, at time.Time) ([]byte, error) {
	t, phase := fd.storm.seconds(since), fd.storm.phase(since)
	var err error
	for i := range fd.fleet {
		b := &fd.fleet[i]
		quiet := b.silent(phase)
		if take(&fd.staticDue[i], since, staticEvery) && !quiet {
			if dst, err = fd.transponder.static(dst, b); err != nil {
				return dst, err
			}
		}
		if take(&fd.positionDue[i], since, b.every) && !quiet {
			if dst, err = fd.transponder.position(dst, b, b.at(t, fd.storm.speed), at); err != nil {
				return dst, err
			}
		}
	}
	return dst, nil
}

// take reports whether *due has come and moves it on by whole steps.
func take(due *time.Duration, since, every time.Duration) bool {
	if since < *due {
		return false
	}
	*due += ((since-*due)/every + 1) * every
	return true
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
