package spool

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"syscall"
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
	// Part is what of the log in a cluster this Spool is for; the zero value is
	// everything. With a part, Open takes no lock on Dir: several may share it.
	Part Part
	// Gateway is who has the log, for those who find it taken in a cluster.
	Gateway string
	// Console is the address at which the holder of RoleIOC serves its console, for
	// the machines that forward to it: it is told in the lease.
	Console string
	// Status is asked at each renewal of the lease, and told in it (JSON, at most
	// 64 KiB) to whoever looks at a Roster. nil: there is nothing to tell.
	Status func() json.RawMessage
	// Waiting makes Open wait until the log in a cluster can be used, however long
	// that takes, and is told why it cannot, at each change of the reason. When it
	// is nil, Open returns the reason: an ErrTaken when another has the part.
	Waiting func(reason error)
	// Followers are the names that may follow the readings. What all of them
	// have accepted is emptied; stored positions of other names are forgotten.
	// When it is nil, nothing is emptied before its age and nothing forgotten. With
	// a Part it is RoleRules that empties, also for those that follow in other
	// processes, and nobody forgets.
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

	readings  *Log[telemetry.Reading]    // of the part's partition
	parts     []*Log[telemetry.Reading]  // of each partition; nil where the part has nothing to do with it
	steps     *Log[telemetry.Transition] // nil where the part has nothing to do with them
	warnings  *Log[telemetry.Transition]
	attempts  *Log[telemetry.Attempt] // nil where the part has nothing to do with them
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
	if err := o.Part.fits(o.Config); err != nil {
		return nil, err
	}
	if err := s.takeFolder(); err != nil {
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
	part := s.options.Part
	s.parts = make([]*Log[telemetry.Reading], s.config.Partitions)
	for p := range s.parts {
		if !part.one() || p == part.Partition {
			s.parts[p] = newLog(newCore(s, readingsPlace(p, len(s.parts))), readingCodec())
		}
	}
	s.readings = s.parts[part.Partition]
	s.warnings = newLog(newCore(s, singlePlace(logWarnings, streamWarnings)), transitionCodec())
	s.warnings.readOnly = !part.writesWarnings()
	s.letters = newLog(newCore(s, singlePlace(logLetters, streamLetters)), jsonCodec(func(d *telemetry.DeadLetter) string { return d.Device }))
	if part.Role == RoleRules || part.Role == RoleIOC {
		s.steps = newLog(newCore(s, stepsPlace(part)), transitionCodec())
		s.steps.readOnly = part.Role == RoleIOC
	}
	if part.tells() {
		s.attempts = newLog(newCore(s, singlePlace(logAttempts, streamAttempts)), jsonCodec(func(*telemetry.Attempt) string { return "" }))
	}
	for _, c := range s.cores() {
		if err := c.open(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *Spool) cores() []*core {
	var all []*core
	for _, log := range s.parts {
		if log != nil {
			all = append(all, log.core)
		}
	}
	all = append(all, s.warnings.core, s.letters.core)
	if s.steps != nil {
		all = append(all, s.steps.core)
	}
	if s.attempts != nil {
		all = append(all, s.attempts.core)
	}
	return all
}

// Readings is the log of what sources delivered and of the gateway's own
// control records; of RoleRules, RoleStore and RolePost that of their partition, of
// the other parts that of partition 0.
func (s *Spool) Readings() *Log[telemetry.Reading] { return s.readings }

// Partitions returns how many partitions the readings have.
func (s *Spool) Partitions() int { return len(s.parts) }

// ReadingsOf is the log of a partition's readings, from 0; nil when there is no
// such partition, and for parts of one partition when it is not theirs.
func (s *Spool) ReadingsOf(partition int) *Log[telemetry.Reading] {
	if partition < 0 || partition >= len(s.parts) {
		return nil
	}
	return s.parts[partition]
}

// Partitioned appends to all partitions. It is nil for parts of one partition of a
// log of several.
func (s *Spool) Partitioned() *Partitioned {
	if slices.Contains(s.parts, nil) {
		return nil
	}
	return &Partitioned{logs: s.parts}
}

// Steps is the log of the transitions that the engines give, on their way to the
// centre: RoleRules appends those of its partition, RoleIOC follows all of them.
// It is nil for everybody else. Two engines may be at work on a partition for a
// moment, so that a step comes twice: the centre drops what it knows by id and
// step. What it has accepted is emptied.
func (s *Spool) Steps() *Log[telemetry.Transition] { return s.steps }

// Warnings is the log of the transitions of warnings. Of the parts only RoleIOC
// appends to it; all may follow it.
func (s *Spool) Warnings() *Log[telemetry.Transition] { return s.warnings }

// Attempts is the log of what recipients were told: RolePost appends to it, RoleIOC
// follows it. It is nil for everybody else.
func (s *Spool) Attempts() *Log[telemetry.Attempt] { return s.attempts }

// DeadLetters is the log of what was set aside.
func (s *Spool) DeadLetters() *Log[telemetry.DeadLetter] { return s.letters }

// Health returns nil while readings are taken, else why not: an ErrFull, an
// ErrUnavailable or ErrClosed. It does not ask the disk.
//
// Of a part it is whether its work goes on: RoleIngest takes readings in all
// partitions; those of RoleRules, and the steps, are not full; RoleIOC can write
// warnings.
func (s *Spool) Health() error {
	if s.serving.Err() != nil {
		return ErrClosed
	}
	for _, c := range s.needed() {
		switch {
		case c.lowDisk.Load():
			return fmt.Errorf("%w: the disk of %s is nearly full", ErrFull, s.options.Dir)
		case c.full.Load():
			return fmt.Errorf("%w: %s on disk", ErrFull, s.bound(c))
		case c.broken.Load() && s.cluster != nil:
			return cmp.Or(s.cluster.health(), ErrUnavailable) // it may know why
		case c.broken.Load():
			return ErrUnavailable
		}
	}
	if s.cluster != nil {
		return s.cluster.health()
	}
	return nil
}

// needed are the logs that the part writes to.
func (s *Spool) needed() []*core {
	switch s.options.Part.Role {
	case RoleIngest:
		return s.cores()[:len(s.parts)]
	case RoleRules:
		return []*core{s.readings.core, s.steps.core}
	case RoleStore, RolePost: // what recipients were told waits until it can be noted
		return nil
	case RoleIOC:
		return []*core{s.warnings.core}
	}
	return []*core{s.readings.core}
}

// anyFull reports whether a log that the part writes to is full.
func (s *Spool) anyFull() bool {
	return slices.ContainsFunc(s.needed(), func(c *core) bool { return c.full.Load() })
}

// takeFolder makes the folder and takes its lock. Parts share it: their leases
// keep others out.
func (s *Spool) takeFolder() (err error) {
	if s.options.Part == (Part{}) {
		s.lock, err = lockFolder(s.options.Dir)
		return err
	}
	if err := os.MkdirAll(s.options.Dir, 0o750); err != nil {
		return fmt.Errorf("make the spool's folder: %w", err)
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
	// A child that is being started has the file open until its exec: closing it here
	// would leave the folder locked for that long.
	if err := errors.Join(syscall.Flock(int(s.lock.Fd()), syscall.LOCK_UN), s.lock.Close()); err != nil {
		return fmt.Errorf("release the lock of %s: %w", s.options.Dir, err)
	}
	return nil
}
