package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

// ErrFull says that records were refused because a bound is reached: the log's
// size or the free disk. They may be appended again later.
var ErrFull = errors.New("the log is full")

// ErrUnavailable says that the log could not write for a while. The records may
// be on disk all the same; they may be appended again.
var ErrUnavailable = errors.New("the log cannot write")

// ErrClosed says that the spool is closed.
var ErrClosed = errors.New("the spool is closed")

// Options are what Open needs.
type Options struct {
	// Dir is the folder of the embedded log; it is made when it is missing. With
	// Config.URL it only remembers which cluster the log is in.
	Dir    string
	Config Config
	// Used says that there was a log before: if Dir has none, it was lost.
	Used bool
	// Scratch is for a log that can be made again, as that of a replay: frames
	// are not synced one by one. A power cut may lose any of them.
	Scratch bool
	// Now is the clock of log time. Default time.Now.
	Now func() time.Time
	// Gateway is who has the log, for those who find it taken in a cluster.
	Gateway string
	// Waiting makes Open wait until the log in a cluster can be used, however long
	// that takes, and is told why it cannot, at each change of the reason. When it
	// is nil, Open returns the reason.
	Waiting func(reason error)
	// Followers are the names that may follow the readings. What all of them
	// have accepted is emptied; stored positions of other names are forgotten.
	// When it is nil, nothing is emptied before its age and nothing forgotten.
	Followers []string
	// Paced is the follower of the readings that they do not run away from: while
	// it is more than 0.15 s behind, each frame waits up to 50 ms for it. "" for none.
	Paced     string
	leaseLife time.Duration // in a cluster, for tests; 0: leaseLife
	// Registerer takes the metrics; Close takes them back. May be nil.
	Registerer prometheus.Registerer
	// Logger gets what an operator should look at. Default slog.Default.
	Logger *slog.Logger
}

// A Spool is the durable log: see the package. It is safe for concurrent use.
type Spool struct {
	options Options
	config  Config // with its defaults
	logger  *slog.Logger
	metrics *metrics
	lock    *os.File
	ends    *ends    // nil in a cluster
	damage  []damage // found when it was opened, until it is told

	life   context.Context // until Close gives up waiting
	end    context.CancelFunc
	work   sync.WaitGroup // committers, completers
	upkeep sync.WaitGroup // positions, room
	idle   chan struct{}  // closed when upkeep may end

	linkMu   sync.Mutex
	link     *link // the connection to JetStream; replaced when it is restarted
	healedAt time.Time
	cluster  *cluster // nil when the log is embedded
	deposed  context.Context
	taken    context.CancelCauseFunc // ends deposed: another gateway has the log

	readings  *Log[telemetry.Reading]
	warnings  *Log[telemetry.Transition]
	letters   *Log[telemetry.DeadLetter]
	positions *positions
	room      *room

	// writing is held for reading by whoever changes what lies on the disk, so
	// that Snapshot finds it still.
	writing sync.RWMutex

	saving sync.Mutex
	saveTo map[string]string // object to which a checkpoint is saved next, once known

	followMu  sync.Mutex
	following map[followerKey]bool
	followers sync.WaitGroup

	serving   context.Context // until Close begins
	stop      context.CancelFunc
	closeOnce sync.Once
	closeErr  error
}

// Open opens the log, and makes it when there is none. It takes a lock on the
// folder: a second opener gets an error that names the process that has it.
func Open(ctx context.Context, o Options) (_ *Spool, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	s := &Spool{options: o, config: o.Config, logger: o.Logger, idle: make(chan struct{}), following: map[followerKey]bool{}, saveTo: map[string]string{}}
	s.serving, s.stop = context.WithCancel(context.Background())
	s.life, s.end = context.WithCancel(context.Background())
	s.deposed, s.taken = context.WithCancelCause(context.Background())
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	if o.Config.URL == "" {
		if _, err := os.Stat(o.Dir); o.Used && errors.Is(err, fs.ErrNotExist) {
			s.damage = append(s.damage, damage{what: o.Dir})
		}
	}
	if s.lock, err = lockFolder(o.Dir); err != nil {
		return nil, err
	}
	s.metrics = newMetrics(o.Registerer)
	if o.Config.URL == "" {
		if s.ends, err = openEnds(o.Dir, s.logger); err != nil {
			return nil, err
		}
		if err = s.mend(); err != nil {
			return nil, err
		}
		s.ends.begin()
		if s.link, err = s.openLink(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.attach(ctx); err != nil {
		return nil, err
	}
	s.metrics.observe(s)
	s.room = newRoom(s)
	for _, c := range s.cores() {
		s.work.Go(c.commit)
		s.work.Go(c.complete)
	}
	s.upkeep.Go(s.positions.keep)
	s.upkeep.Go(s.room.watch)
	s.tellDamage()
	return s, nil
}

// openParts opens what lies behind the connection.
func (s *Spool) openParts(ctx context.Context) (err error) {
	if err := s.openLogs(ctx); err != nil {
		return err
	}
	if s.positions, err = openPositions(ctx, s); err != nil {
		return err
	}
	return s.sweepCheckpoints(ctx)
}

func (s *Spool) openLogs(ctx context.Context) error {
	free := int64(0)
	if s.config.URL == "" {
		var err error
		if free, err = freeBytes(s.options.Dir); err != nil {
			return err
		}
		free += s.link.bytes(ctx, streamReadings)
	}
	s.config = s.options.Config.withDefaults(free)
	s.readings = newLog(newCore(s, logReadings, streamReadings), readingCodec())
	s.warnings = newLog(newCore(s, logWarnings, streamWarnings), jsonCodec(func(t *telemetry.Transition) string { return t.Device }))
	s.letters = newLog(newCore(s, logLetters, streamLetters), jsonCodec(func(d *telemetry.DeadLetter) string { return d.Device }))
	for _, c := range s.cores() {
		if err := c.open(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *Spool) cores() []*core {
	return []*core{s.readings.core, s.warnings.core, s.letters.core}
}

// Readings is the log of what sources delivered and of the gateway's own
// control records.
func (s *Spool) Readings() *Log[telemetry.Reading] { return s.readings }

// Warnings is the log of the transitions of warnings.
func (s *Spool) Warnings() *Log[telemetry.Transition] { return s.warnings }

// DeadLetters is the log of what was set aside.
func (s *Spool) DeadLetters() *Log[telemetry.DeadLetter] { return s.letters }

// Health returns nil while readings are taken, else why not: an ErrFull, an
// ErrUnavailable or ErrClosed. It does not ask the disk.
func (s *Spool) Health() error {
	c := s.readings.core
	switch {
	case s.serving.Err() != nil:
		return ErrClosed
	case c.lowDisk.Load():
		return fmt.Errorf("%w: the disk of %s is nearly full", ErrFull, s.options.Dir)
	case c.full.Load():
		return fmt.Errorf("%w: %s on disk", ErrFull, s.bound(c))
	case c.broken.Load():
		return ErrUnavailable
	}
	if s.cluster != nil {
		return s.cluster.health()
	}
	return nil
}

// Close refuses new records, writes those that are queued, ends the followers
// and waits for their accept, stores their positions and stops the embedded
// server. Callbacks of AppendAsync have returned when it returns.
func (s *Spool) Close() error {
	s.closeOnce.Do(func() {
		s.followMu.Lock() // no follower begins from here on
		s.stop()
		s.followMu.Unlock()
		for _, c := range s.cores() {
			c.close()
		}
		patience := time.AfterFunc(closePatience, s.end)
		s.followers.Wait()
		s.work.Wait()
		patience.Stop()
		close(s.idle)
		s.upkeep.Wait()
		s.closeErr = s.release()
	})
	return s.closeErr
}

// bound tells the bound of a log for a message.
func (s *Spool) bound(c *core) telemetry.Size {
	return telemetry.Size(c.streamConfig().MaxBytes)
}

// closePatience bounds how long Close waits for a disk that does not write.
const closePatience = 15 * time.Second

// release gives back what Open took, as far as it came.
func (s *Spool) release() error {
	s.stop()
	s.end()
	s.taken(nil)
	if s.cluster != nil {
		s.cluster.owner.end()
	}
	s.linkMu.Lock()
	if s.link != nil {
		s.link.close()
	}
	s.linkMu.Unlock()
	if s.metrics != nil {
		s.metrics.unregister()
	}
	if s.ends != nil {
		s.ends.close()
	}
	if s.lock == nil {
		return nil
	}
	if err := s.lock.Close(); err != nil {
		return fmt.Errorf("release the lock of %s: %w", s.options.Dir, err)
	}
	return nil
}
