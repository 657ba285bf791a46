package spool

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
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
const (
	streamOwners = "OWNERS"
	ownerSubject = "owners.gateway"
	epochSubject = "epochs.gateway"

	leaseLife = 10 * time.Second
)

// trust is how long an owner believes in a lease that it cannot renew.
func (o *owner) trust() time.Duration { return o.life * 7 / 10 }

// An owner is the lease of this gateway, or the wish for it.
type owner struct {
	cluster *cluster
	self    holder
	life    time.Duration // of a lease

	mu       sync.Mutex
	at       *link
	revision uint64    // of our lease
	sent     time.Time // when it was asked for
	lost     error     // another has been the owner since: there is no way back

	stop  context.CancelFunc
	ended chan struct{} // closed when renew has ended; nil before begin
}

// A holder is what the lease says about who holds it.
type holder struct {
	Instance string    `json:"instance"` // one run of the program
	Gateway  string    `json:"gateway"`
	Host     string    `json:"host"`
	PID      int       `json:"pid"`
	Since    time.Time `json:"since"`
}

func newOwner(c *cluster) *owner {
	host, _ := os.Hostname() // for people
	o := &owner{cluster: c, life: cmp.Or(c.spool.options.leaseLife, leaseLife), self: holder{
		Instance: rand.Text(), Gateway: c.spool.options.Gateway, Host: host, PID: os.Getpid(), Since: time.Now().UTC(),
	}}
	return o
}

// acquire takes the lease, and puts down that this run has it now.
func (o *owner) acquire(ctx context.Context, l *link) error {
	js := l.append
	o.at = l
	if err := o.take(ctx, js, 0); err != nil {
		return err
	}
	text, err := json.Marshal(o.self)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	if _, err := js.Publish(ctx, epochSubject, text); err != nil {
		return fmt.Errorf("put down who has the log: %w", err)
	}
	return nil
}

// take appends the lease behind the revision; 0: when there is none.
func (o *owner) take(ctx context.Context, js jetstream.JetStream, revision uint64) error {
	text, err := json.Marshal(o.self)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	sent := time.Now()
	ack, err := js.PublishMsg(ctx, &nats.Msg{Subject: ownerSubject, Data: text},
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
	held, revision, err := lastHolder(ctx, js, ownerSubject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return errLeaseGone
	}
	if err != nil {
		return err
	}
	if held.Instance != o.self.Instance {
		return fmt.Errorf("%w: %s on %s (pid %d), since %s; this one stands by", ErrTaken, held.Gateway, held.Host, held.PID, held.Since.Format(time.RFC3339))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	// It was appended at some time before we asked: the life that is left is not
	// known, so it is renewed before it is believed in.
	o.revision, o.sent = revision, asked.Add(-o.trust())
	return nil
}

func lastHolder(ctx context.Context, js jetstream.JetStream, subject string) (held holder, revision uint64, err error) {
	stream, err := js.Stream(ctx, streamOwners)
	if err != nil {
		return held, 0, fmt.Errorf("ask who has the log: %w", err)
	}
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
	if errors.Is(err, ErrTaken) {
		o.mu.Lock()
		o.lost = err
		o.mu.Unlock()
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
	last, _, err := lastHolder(ctx, js, epochSubject)
	if err == nil && last.Instance != o.self.Instance {
		err = fmt.Errorf("%w: %s on %s (pid %d) has had it since %s", ErrTaken, last.Gateway, last.Host, last.PID, last.Since.Format(time.RFC3339))
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
	at, revision, lost := o.at, o.revision, o.lost
	o.revision, o.sent = 0, time.Time{}
	o.mu.Unlock()
	if revision == 0 || lost != nil || !at.writing.IsConnected() {
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
	c.spool.logger.Error("another gateway has taken over the log; this one ends, and stands by when it is started again", "error", err)
	c.spool.metrics.surrendered.Inc()
	c.spool.taken(err)
}
