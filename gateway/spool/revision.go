package spool

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// revision returns the revision of a key that this gateway knows, and set notes
// another. Keys of positions and of checkpoints differ by their subject.
func (c *cluster) revision(subject string) (uint64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, known := c.revisions[subject]
	return n, known
}

func (c *cluster) setRevision(subject string, n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revisions[subject] = n
}

// replace writes a value in place of the one of the revision that we know. A
// value that is there instead is ours, of a write whose answer was lost, as long
// as we are the owner; else it is that of another, and ours must not be written.
func (s *Spool) replace(ctx context.Context, link *link, stream, subject string, m *nats.Msg) error {
	revision, known := s.cluster.revision(subject)
	for tries := 0; ; tries++ {
		var err error
		if !known {
			if revision, err = lastRevision(ctx, link.append, stream, subject); err != nil {
				return err
			}
		}
		if err := s.trust(ctx, link); err != nil {
			return err
		}
		ack, err := link.append.PublishMsg(ctx, m, jetstream.WithExpectLastSequencePerSubject(revision))
		if err == nil {
			s.cluster.setRevision(subject, ack.Sequence)
			return nil
		}
		if !isWrongSequence(err) || tries > 0 {
			return err
		}
		if err := s.cluster.owner.renew(ctx); err != nil { // asks the cluster whether we are the owner
			return err
		}
		known = false
	}
}

func lastRevision(ctx context.Context, js jetstream.JetStream, name, subject string) (uint64, error) {
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return 0, err
	}
	m, err := stream.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return m.Sequence, nil
}

// putPosition stores the position of a follower under its key.
func (s *Spool) putPosition(ctx context.Context, link *link, kv jetstream.KeyValue, key, value string) error {
	if s.cluster == nil {
		_, err := kv.PutString(ctx, key, value)
		return err
	}
	subject := "$KV." + bucketKV + "." + key
	return s.replace(ctx, link, "KV_"+bucketKV, subject, &nats.Msg{Subject: subject, Data: []byte(value)})
}

// saveShared stores a checkpoint as an object of JetStream's object store: its
// pieces first, and then the object itself, against the revision that this
// gateway knows. Until then, there is the one before.
func (s *Spool) saveShared(ctx context.Context, name string, blob []byte) error {
	link := s.current()
	sum := sha256.Sum256(blob)
	object := jetstream.ObjectInfo{
		ObjectMeta: jetstream.ObjectMeta{Name: name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: checkpointChunk}},
		Bucket:     bucketObjects, NUID: rand.Text(), Size: uint64(len(blob)),
		Digest: "SHA-256=" + base64.URLEncoding.EncodeToString(sum[:]),
	}
	subject := objectSubject(name)
	stream, err := link.append.Stream(ctx, "OBJ_"+bucketObjects)
	if err != nil {
		return err
	}
	old, err := objectAt(ctx, stream, subject)
	if err != nil {
		return err
	}
	pieces := checkpointSubject + object.NUID
	err = func() error {
		for rest := blob; len(rest) > 0; object.Chunks++ {
			n := min(len(rest), checkpointChunk)
			if err := s.trust(ctx, link); err != nil {
				return err
			}
			if _, err := link.append.Publish(ctx, pieces, rest[:n]); err != nil {
				return fmt.Errorf("write piece %d: %w", object.Chunks+1, err)
			}
			rest = rest[n:]
		}
		text, err := json.Marshal(object)
		if err != nil {
			return err
		}
		m := &nats.Msg{Subject: subject, Data: text, Header: nats.Header{jetstream.MsgRollup: []string{jetstream.MsgRollupSubject}}}
		return s.replace(ctx, link, "OBJ_"+bucketObjects, subject, m)
	}()
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	switch {
	case errors.Is(err, ErrTaken):
		_ = stream.Purge(clean, jetstream.WithPurgeSubject(pieces)) // what stays is bounded, and nobody's
	case err != nil: // it may have been written all the same
	case old != nil && old.NUID != object.NUID:
		_ = stream.Purge(clean, jetstream.WithPurgeSubject(checkpointSubject+old.NUID))
	}
	return err
}

// objectSubject is that of the head of an object.
func objectSubject(name string) string {
	return "$O." + bucketObjects + ".M." + base64.URLEncoding.EncodeToString([]byte(name))
}

func objectAt(ctx context.Context, stream jetstream.Stream, subject string) (*jetstream.ObjectInfo, error) {
	m, err := stream.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	object := &jetstream.ObjectInfo{}
	if json.Unmarshal(m.Data, object) != nil {
		return nil, nil // not ours
	}
	return object, nil
}

// sweepAge spares the pieces of a checkpoint that somebody may be saving, who
// does not know yet that the log is not its own any more.
const sweepAge = time.Minute

// sweepShared removes the pieces of checkpoints that a crash has left behind.
func (s *Spool) sweepShared(ctx context.Context) error {
	stream, err := s.link.append.Stream(ctx, "OBJ_"+bucketObjects)
	if err != nil {
		return fmt.Errorf("open the checkpoints: %w", err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter("$O."+bucketObjects+".>"))
	if err != nil {
		return fmt.Errorf("list the checkpoints: %w", err)
	}
	whole := map[string]bool{}
	for subject := range info.State.Subjects {
		if strings.HasPrefix(subject, checkpointSubject) {
			continue
		}
		object, err := objectAt(ctx, stream, subject)
		if err != nil {
			return fmt.Errorf("list the checkpoints: %w", err)
		}
		if object != nil {
			whole[checkpointSubject+object.NUID] = true
		}
	}
	for subject := range info.State.Subjects {
		if whole[subject] || !strings.HasPrefix(subject, checkpointSubject) {
			continue
		}
		m, err := stream.GetLastMsgForSubject(ctx, subject)
		if err == nil && info.TimeStamp.Sub(m.Time) > sweepAge {
			err = stream.Purge(ctx, jetstream.WithPurgeSubject(subject))
		}
		if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
			return fmt.Errorf("remove the rest of a checkpoint: %w", err)
		}
	}
	return nil
}
