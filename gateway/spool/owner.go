package spool

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// In a cluster the lock of the folder keeps nobody out, so who works on the log
// holds a lease: a message with a time to live, which is there at most once
// (JetStream appends it only if it is missing) and which the cluster itself
// removes when it is not renewed. Who finds it there stands by. JetStream's
// pinned consumers would do the same, but the pin is in the memory of the
// consumer's leader: at each of four changes of that leader the pin went to the
// standby within half a second, mostly within 30 ms, though the owner was well
// (nats-server 2.15.2).
//
// A lease alone cannot stop an owner that slept through its end in the middle of
// a write. So what must not come twice is written against what was there before:
// positions and checkpoints against their revision, warnings against the sequence
// they must get.
//
// Each part of the log has a lease of its own. Machines that take readings, of
// which there may be any number, have one each, so that they are known.
const (
	streamOwners = "OWNERS"
	ownerPrefix  = "owners." // and the name of the lease: who has it, while the lease lives
	epochPrefix  = "epochs." // the same: who had it last
	wholeLease   = "gateway" // of a gateway without roles

	leaseLife = 10 * time.Second
)

// ErrMixed says that a gateway without roles and machines with roles meet on one
// log: what each makes of it would come twice.
var ErrMixed = errors.New("a gateway without roles and machines with roles exclude each other")

// trust is how long an owner believes in a lease that it cannot renew.
func (o *owner) trust() time.Duration { return o.life * 7 / 10 }

// An owner is the lease of this gateway, or the wish for it.
type owner struct {
	cluster *cluster
	lease   string
	self    Holder
	life    time.Duration // of a lease

	mu       sync.Mutex
	at       *link
	revision uint64    // of our lease
	sent     time.Time // when it was asked for
	lost     error     // there is no way back: another has been the owner since
	resigned bool      // or we have to begin anew

	stop  context.CancelFunc
	ended chan struct{} // closed when renew has ended; nil before begin
}

// A Holder is what a lease says about who holds it.
type Holder struct {
	Instance string    `json:"instance"` // one life of a Spool
	Gateway  string    `json:"gateway"`
	Host     string    `json:"host"`
	PID      int       `json:"pid"`
	Since    time.Time `json:"since"`
	Console  string    `json:"console,omitempty"` // of RoleIOC: Options.Console

	Status json.RawMessage `json:"status,omitempty"` // Options.Status, of a moment ago
}

// String names the holder for people.
func (h Holder) String() string { return fmt.Sprintf("%s on %s (pid %d)", h.Gateway, h.Host, h.PID) }

func newOwner(c *cluster) *owner {
	options := &c.spool.options
	host, _ := os.Hostname() // for people
	o := &owner{cluster: c, lease: options.Part.String(), life: cmp.Or(options.leaseLife, leaseLife), self: Holder{
		Instance: rand.Text(), Gateway: options.Gateway, Host: host, PID: os.Getpid(), Since: time.Now().UTC(),
	}}
	switch options.Part.Role {
	case RoleIOC:
		o.self.Console = options.Console
	case RoleIngest:
		o.lease += "." + strings.ToLower(o.self.Instance[:8])
	}
	return o
}

// acquire takes the lease, and puts down that this run has it now.
func (o *owner) acquire(ctx context.Context, l *link) error {
	js := l.append
	o.at = l
	// Asked before, so that who may not take it does not disturb, and after: of two
	// who take theirs at the same time one at least sees the other.
	if err := o.rivals(ctx, js); err != nil {
		return err
	}
	if err := o.take(ctx, js, 0); err != nil {
		return err
	}
	if err := o.rivals(ctx, js); err != nil || o.shared() {
		return err
	}
	text, err := json.Marshal(o.self)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	if _, err := js.Publish(ctx, epochPrefix+o.lease, text); err != nil {
		return fmt.Errorf("put down who has the log: %w", err)
	}
	return nil
}

// shared reports whether the lease is nobody else's wish: it only tells of us.
func (o *owner) shared() bool { return o.cluster.spool.options.Part.shared() }

// rivals returns an ErrMixed when somebody works on the log the other way: with
// roles, or without.
func (o *owner) rivals(ctx context.Context, js jetstream.JetStream) error {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	stream, err := js.Stream(ctx, streamOwners)
	if err != nil {
		return fmt.Errorf("ask who has the log: %w", err)
	}
	leases, what := []string{wholeLease}, "the gateway that has it, %s, has none"
	if o.lease == wholeLease {
		what = "those of %s are at work"
		if leases, err = leasesOf(ctx, stream); err != nil {
			return fmt.Errorf("ask who has the log: %w", err)
		}
	}
	for _, lease := range leases {
		if lease == o.lease {
			continue
		}
		held, _, err := holderOf(ctx, stream, ownerPrefix+lease)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		return fmt.Errorf("%w: "+what, ErrMixed, held)
	}
	return nil
}

// take appends the lease behind the revision; 0: when there is none.
func (o *owner) take(ctx context.Context, js jetstream.JetStream, revision uint64) error {
	self := o.self
	if ask := o.cluster.spool.options.Status; ask != nil {
		self.Status = ask()
	}
	text, err := json.Marshal(self)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	sent := time.Now()
	ack, err := js.PublishMsg(ctx, &nats.Msg{Subject: ownerPrefix + o.lease, Data: text},
		jetstream.WithExpectLastSequencePerSubject(revision), jetstream.WithMsgTTL(o.life))
	if isWrongSequence(err) {
		return o.askWho(ctx, js)
	}
	if err != nil {
		return fmt.Errorf("take the lease of the log: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.revision, o.sent = ack.Sequence, sent
	return nil
}

// errLeaseGone says that the lease ended; nobody may have taken it.
var errLeaseGone = errors.New("the lease of the log has ended")

// askWho says who has the lease. That may be us, when an answer was lost.
func (o *owner) askWho(ctx context.Context, js jetstream.JetStream) error {
	asked := time.Now()
	held, revision, err := lastHolder(ctx, js, ownerPrefix+o.lease)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return errLeaseGone
	}
	if err != nil {
		return err
	}
	if held.Instance != o.self.Instance {
		return &takenError{o.lease, fmt.Sprintf("%s, since %s; this one stands by", held, held.Since.Format(time.RFC3339))}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	// It was appended at some time before we asked: the life that is left is not
	// known, so it is renewed before it is believed in.
	o.revision, o.sent = revision, asked.Add(-o.trust())
	return nil
}

// A takenError is an ErrTaken that says who has what.
type takenError struct{ lease, holder string }

func (t *takenError) Error() string {
	if t.lease == wholeLease {
		return ErrTaken.Error() + ": " + t.holder
	}
	return ErrTaken.Error() + "'s part " + t.lease + ": " + t.holder
}

func (t *takenError) Unwrap() error { return ErrTaken }

func lastHolder(ctx context.Context, js jetstream.JetStream, subject string) (Holder, uint64, error) {
	stream, err := js.Stream(ctx, streamOwners)
	if err != nil {
		return Holder{}, 0, fmt.Errorf("ask who has the log: %w", err)
	}
	return holderOf(ctx, stream, subject)
}

func holderOf(ctx context.Context, stream jetstream.Stream, subject string) (held Holder, revision uint64, err error) {
	m, err := stream.GetLastMsgForSubject(ctx, subject)
	if err != nil {
		return held, 0, fmt.Errorf("ask who has the log: %w", err)
	}
	if err := json.Unmarshal(m.Data, &held); err != nil {
		return held, 0, fmt.Errorf("ask who has the log: message %d of stream %s: %w", m.Sequence, streamOwners, err)
	}
	return held, m.Sequence, nil
}

// begin renews the lease until end.
func (o *owner) begin() {
	ctx, stop := context.WithCancel(context.Background())
	o.stop, o.ended = stop, make(chan struct{})
	go func() {
		defer close(o.ended)
		for sleep(ctx, o.life/5) {
			if err := o.renew(ctx); ctx.Err() == nil {
				o.cluster.tellLease(err)
			}
		}
	}()
}

// renew renews the lease. One that has ended because the cluster was away is
// taken again, if nobody has had it since.
func (o *owner) renew(ctx context.Context) error {
	o.mu.Lock()
	js, revision, lost := o.at.append, o.revision, o.lost
	o.mu.Unlock()
	if lost != nil {
		return lost
	}
	if err := o.cluster.verify(ctx, o.at); err != nil {
		return err
	}
	err := o.take(ctx, js, revision)
	if err == nil {
		err = o.unbelieved(ctx, js)
	}
	if errors.Is(err, errLeaseGone) {
		err = o.retake(ctx, js)
	}
	if err == nil && o.shared() { // a gateway that has everything has seen us, unless it came first
		err = o.rivals(ctx, js)
	}
	if errors.Is(err, ErrTaken) {
		return o.lose(err)
	}
	return err
}

// resign gives up a lease that is ours.
func (o *owner) resign(why string) error {
	o.mu.Lock()
	o.resigned = o.lost == nil
	o.mu.Unlock()
	return o.lose(&takenError{o.lease, why})
}

// lose notes that there is no way back to the lease, and why.
func (o *owner) lose(err error) error {
	o.mu.Lock()
	again := o.lost != nil
	if again {
		err = o.lost
	} else {
		o.lost = err
	}
	o.mu.Unlock()
	if !again {
		o.cluster.surrender(err)
	}
	return err
}

// unbelieved renews at once a lease of which it is not known how long it lives.
func (o *owner) unbelieved(ctx context.Context, js jetstream.JetStream) error {
	o.mu.Lock()
	revision, old := o.revision, time.Since(o.sent) >= o.trust()
	o.mu.Unlock()
	if !old {
		return nil
	}
	return o.take(ctx, js, revision)
}

// retake takes a lease that has ended. Whoever has had it meanwhile put itself
// down; what we know of the log is not the newest then.
func (o *owner) retake(ctx context.Context, js jetstream.JetStream) error {
	if err := o.take(ctx, js, 0); err != nil {
		return err
	}
	if o.shared() {
		return nil
	}
	last, _, err := lastHolder(ctx, js, epochPrefix+o.lease)
	if err == nil && last.Instance != o.self.Instance {
		err = &takenError{o.lease, fmt.Sprintf("%s has had it since %s", last, last.Since.Format(time.RFC3339))}
	}
	if err != nil {
		o.mu.Lock()
		o.sent = time.Time{} // not believed in
		o.mu.Unlock()
	}
	return err
}

// holds returns nil while this gateway is certainly the owner.
func (o *owner) holds() error {
	if o.shared() {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.lost != nil:
		return o.lost
	case o.sent.IsZero() || time.Since(o.sent) > o.trust():
		return errUnrenewed
	}
	return nil
}

var errUnrenewed = errors.New("the lease of the log could not be renewed for a while: the cluster does not answer")

// end gives the lease back, so that a standby need not wait for its end.
func (o *owner) end() {
	if o.stop != nil {
		o.stop()
		<-o.ended
	}
	o.mu.Lock()
	at, revision, lost := o.at, o.revision, o.lost != nil && !o.resigned
	o.revision, o.sent = 0, time.Time{}
	o.mu.Unlock()
	if revision == 0 || lost || !at.writing.IsConnected() {
		return // it ends by itself
	}
	ctx, cancel := context.WithTimeout(context.Background(), askPatience)
	defer cancel()
	stream, err := at.append.Stream(ctx, streamOwners)
	if err == nil {
		err = stream.DeleteMsg(ctx, revision)
	}
	if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		o.cluster.spool.logger.Info("the lease of the log is not given back; it ends by itself", "within", o.life, "error", err)
	}
}

// tellLease says why the lease cannot be renewed.
func (c *cluster) tellLease(err error) {
	if err == nil {
		c.tell(matterLease, nil)
	}
	if err == nil || errors.Is(err, ErrTaken) || errors.Is(err, errUnconnected) {
		return // surrender and the connection tell
	}
	var other *otherLog
	if !errors.As(err, &other) {
		c.tell(matterLease, c.explain(err))
	}
}

// surrender ends the followers of a gateway that is not the owner any more.
func (c *cluster) surrender(err error) {
	if part := c.spool.options.Part; part == (Part{}) {
		c.spool.logger.Error("another gateway has taken over the log; this one ends, and stands by when it is started again", "error", err)
	} else {
		c.spool.logger.Warn("another gateway has taken over a part of the log; this one gives it up", "part", part.String(), "error", err)
	}
	c.spool.metrics.surrendered.Inc()
	c.spool.taken(err)
}
