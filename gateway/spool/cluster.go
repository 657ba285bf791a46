package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// What a server of a cluster must be able to do. Leases need a time to live for
// each message, which came with 2.11; a frame with its headers must fit in.
const (
	oldestMajor, oldestMinor = 2, 11
	smallestPayload          = MaxFrameBytes + maxSourcesBytes + 4<<10
)

// Pauses between two tries to come into a cluster.
const (
	enterPause  = time.Second
	enterAtMost = 15 * time.Second
)

// ErrTaken says that another gateway has the log in the cluster: what this one
// makes of it would come twice.
var ErrTaken = errors.New("another gateway has the log")

// A cluster is what there is to know of an external one; an embedded log has none.
type cluster struct {
	spool *Spool
	owner *owner
	known identity // written before anything is appended

	mu        sync.Mutex
	trusted   trust
	faults    map[string]string // what an operator was told of a matter last; "" when it is well
	forced    time.Time         // when a connection was sent away the last time
	refusal   string            // what the server does not allow us, as it says
	revisions map[string]uint64
}

// A trust is for one life of a connection: it may end up at other servers each
// time.
type trust struct {
	link       *link
	reconnects uint64
}

// attach opens everything that the log consists of. With an embedded log it is
// tried once; with a cluster until it succeeds, when Options.Waiting is given.
func (s *Spool) attach(ctx context.Context) error {
	if s.options.Config.URL == "" {
		return s.openParts(ctx)
	}
	s.cluster = newCluster(s)
	if part := s.options.Part; part == (Part{}) || part.Role == RoleIngest {
		s.tellLeft()
	}
	told := ""
	for pause := enterPause; ; pause = min(2*pause, enterAtMost) {
		err := s.enter(ctx)
		if err == nil {
			if told != "" {
				s.logger.Info("the log's cluster is well: the gateway starts", "url", s.where())
			}
			return nil
		}
		s.leaveCluster()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err = fmt.Errorf("the log at %s: %w", s.where(), s.cluster.explain(err))
		if s.options.Waiting == nil {
			return err
		}
		if text := err.Error(); text != told {
			told, pause = text, enterPause
			if s.options.Part == (Part{}) {
				s.logger.Error("the gateway waits for its log and takes no readings", "error", err)
			} else if !errors.Is(err, ErrTaken) { // standing by is a part's ordinary life
				s.logger.Error("a part of the gateway waits for the log", "part", s.options.Part.String(), "error", err)
			}
			s.options.Waiting(err)
		}
		if errors.Is(err, ErrTaken) {
			pause = enterPause // a standby is quick
		}
		if !sleep(ctx, pause) {
			return ctx.Err()
		}
	}
}

// enter tries once to connect to the cluster, to agree with it about the streams
// and to become the owner of the log.
func (s *Spool) enter(ctx context.Context) (err error) {
	if s.link, err = s.openLink(ctx); err != nil {
		return err
	}
	if err := s.cluster.greet(ctx, s.link); err != nil {
		return err
	}
	known, err := readIdentity(s.options.Dir)
	if err != nil {
		return err
	}
	config := s.options.Config.withDefaults(0)
	wanted := s.wantedStreams(config)
	if err := s.agree(ctx, known, wanted[:1]); err != nil { // that of the owners
		return err
	}
	if err := s.cluster.owner.acquire(ctx, s.link); err != nil {
		return err
	}
	if err := s.agree(ctx, known, wanted[1:]); err != nil {
		return err
	}
	if s.cluster.known, err = s.identify(ctx, wanted); err != nil {
		return err
	}
	if err := s.cluster.known.remember(s.options.Dir); err != nil {
		return err
	}
	s.cluster.trustNow(s.link)
	s.cluster.owner.begin()
	return s.openParts(ctx)
}

// leaveCluster undoes enter, as far as it came.
func (s *Spool) leaveCluster() {
	s.cluster.owner.end()
	if s.link != nil {
		s.link.close()
		s.link = nil
	}
	s.cluster.owner = newOwner(s.cluster)
}

func newCluster(s *Spool) *cluster {
	c := &cluster{spool: s, revisions: map[string]uint64{}, faults: map[string]string{}}
	c.owner = newOwner(c)
	return c
}

// where is the address of the cluster for messages.
func (s *Spool) where() string { return redact(s.options.Config.URL) }

// greet looks at the server that we are connected to, and whether its JetStream
// answers.
func (c *cluster) greet(ctx context.Context, l *link) error {
	for _, conn := range []*nats.Conn{l.writing, l.reading} {
		if err := fitting(conn); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	if _, err := l.append.AccountInfo(ctx); err != nil {
		return fmt.Errorf("ask for JetStream: %w", err)
	}
	return nil
}

// fitting says why a server cannot keep the log.
func fitting(conn *nats.Conn) error {
	version := conn.ConnectedServerVersion()
	if !recent(version) {
		return fmt.Errorf("server %q has version %s; it must be %d.%d or newer", conn.ConnectedServerName(), version, oldestMajor, oldestMinor)
	}
	if conn.MaxPayload() < smallestPayload {
		return fmt.Errorf("server %q takes messages of at most %d bytes; a frame needs %d: set max_payload", conn.ConnectedServerName(), conn.MaxPayload(), smallestPayload)
	}
	return nil
}

// recent reports whether a version such as 2.12.1 or 2.12.0-RC.1 is recent enough.
func recent(version string) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	return err1 == nil && err2 == nil && (major > oldestMajor || major == oldestMajor && minor >= oldestMinor)
}

// explain says in an operator's words what keeps the gateway out of its cluster.
func (c *cluster) explain(err error) error {
	c.mu.Lock()
	refusal := c.refusal
	c.mu.Unlock()
	return explain(err, refusal)
}

// explain is cluster.explain; refusal is what the server does not allow us.
func explain(err error, refusal string) error {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAccountAuthExpired), errors.Is(err, nats.ErrAuthRevoked):
		return fmt.Errorf("the cluster refuses spool.credentials, or user and password: %w", err)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("it has no JetStream, or not for this account: %w", err)
	case errors.Is(err, nats.ErrNoServers):
		return fmt.Errorf("no server of the cluster can be reached: %w", err)
	case isSilent(err) && refusal != "":
		return fmt.Errorf("the account may not do what it must: %s", refusal)
	case isSilent(err):
		return fmt.Errorf("its JetStream does not answer: the cluster has no quorum, or is starting: %w", err)
	case errors.As(err, &api) && api.ErrorCode == 10005:
		return fmt.Errorf("too few servers of the cluster are up and have room for the log: %w", err)
	case errors.As(err, &api) && slices.Contains([]jetstream.ErrorCode{10002, 10023, 10047}, api.ErrorCode):
		return fmt.Errorf("the cluster has no room for the log (spool.max_bytes, spool.replicas; docs/cluster.md says how much it needs): %w", err)
	}
	return err
}

// isSilent tells the errors of a JetStream that cannot decide anything now.
func isSilent(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api.Code == 503
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse)
}

// trustNow notes that the cluster behind the connection was looked at. What comes
// over it is believed until it is lost.
func (c *cluster) trustNow(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trusted = trust{link: l, reconnects: l.writing.Stats().Reconnects}
}

// trust reports whether what is written over the connection goes to the log that
// this gateway owns. After the connection was lost, it looks at the streams
// first: the address may lead somewhere else by now.
func (s *Spool) trust(ctx context.Context, l *link) error {
	if s.cluster == nil {
		return nil
	}
	if err := s.cluster.owner.holds(); err != nil {
		return err
	}
	return s.cluster.verify(ctx, l)
}

// verify is trust without the question who is the owner.
func (c *cluster) verify(ctx context.Context, l *link) error {
	if !l.writing.IsConnected() {
		return errUnconnected
	}
	before := l.writing.Stats().Reconnects
	c.mu.Lock()
	same := c.trusted == trust{link: l, reconnects: before}
	c.mu.Unlock()
	if same {
		return nil
	}
	if err := c.look(ctx, l.writing, l.append); err != nil {
		c.doubt() // somebody may have looked with success meanwhile: what was told is untold by the next look
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trusted = trust{link: l, reconnects: before} // when it was lost meanwhile, it is looked at again
	return nil
}

var errUnconnected = errors.New("there is no connection to the cluster")

// look compares the streams behind a connection with those that were there when
// the log was opened. A wrong cluster is left, so that the client tries the next
// of its addresses.
func (c *cluster) look(ctx context.Context, conn *nats.Conn, js jetstream.JetStream) error {
	err := fitting(conn)
	if err == nil {
		err = c.known.matches(ctx, js)
	}
	var other *otherLog
	if errors.As(err, &other) {
		c.mu.Lock()
		force := time.Since(c.forced) > enterPause
		if force {
			c.forced = time.Now()
		}
		c.mu.Unlock()
		if force {
			_ = conn.ForceReconnect() // it is tried again, and said again
		}
	}
	c.tell(matterConnection, err)
	return err
}

// doubt makes trust look at the cluster again.
func (c *cluster) doubt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trusted = trust{}
}

// What may be wrong with a cluster.
const (
	matterConnection = "connection"
	matterLease      = "lease"
)

// tell says what is wrong with the cluster, once for each thing.
func (c *cluster) tell(matter string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	c.mu.Lock()
	changed := text != c.faults[matter]
	c.faults[matter] = text
	c.mu.Unlock()
	switch {
	case !changed:
	case text == "":
		c.spool.logger.Info("the log's cluster is well again", "matter", matter, "url", c.spool.where())
	default:
		c.spool.logger.Error("the log's cluster cannot be used; nothing is acknowledged meanwhile", "matter", matter, "url", c.spool.where(), "error", text)
	}
}

// health is why nothing is written now, as far as the cluster is the reason.
func (c *cluster) health() error {
	c.spool.linkMu.Lock()
	l := c.spool.link
	c.spool.linkMu.Unlock()
	err := c.owner.holds()
	if errors.Is(err, ErrTaken) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if l != nil && !l.writing.IsConnected() {
		return fmt.Errorf("%w: %w", ErrUnavailable, errUnconnected)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, matter := range []string{matterConnection, matterLease} {
		if text := c.faults[matter]; text != "" {
			return fmt.Errorf("%w: %s", ErrUnavailable, text)
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// watched adds what tells an operator of the connection to its options.
func (c *cluster) watched(options []nats.Option) []nats.Option {
	return append(options,
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if c.spool.life.Err() == nil && err != nil {
				c.tell(matterConnection, fmt.Errorf("the connection is lost: %w", err))
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) {
			c.spool.metrics.reconnects.Inc()
			c.doubt() // the next frame, or the lease, looks at the cluster, and says what it finds after the above
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			if errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) || errors.Is(err, nats.ErrAccountAuthExpired) {
				c.tell(matterConnection, c.explain(err))
			}
		}),
	)
}

// refused notes what the server does not allow us: requests then go unanswered.
func (c *cluster) refused(err error) {
	if errors.Is(err, nats.ErrPermissionViolation) {
		c.mu.Lock()
		c.refusal = err.Error()
		c.mu.Unlock()
	}
}

// tellLeft says that there is an embedded log in the folder that nobody follows
// any more.
func (s *Spool) tellLeft() {
	left := filepath.Join(s.options.Dir, "jetstream", "$G", "streams", streamReadings)
	if _, err := os.Stat(left); err == nil {
		s.logger.Warn("the data folder has a log of its own from before spool.url was set; what was not read of it stays unread", "folder", s.options.Dir)
	}
}
