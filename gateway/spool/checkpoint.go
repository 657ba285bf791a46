package spool

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	checkpointChunk   = 256 << 10
	maxCheckpoints    = 1 << 30 // bytes of all checkpoints
	checkpointSubject = "$O." + bucketObjects + ".C."
)

// SaveCheckpoint stores what a follower made of the log, under a name, in place
// of what was there: after a crash there is either the old one or the new one,
// whole. It is on disk when SaveCheckpoint returns.
func (s *Spool) SaveCheckpoint(ctx context.Context, name string, blob []byte) error {
	if s.cluster != nil {
		if err := s.saveShared(ctx, name, blob); err != nil {
			return fmt.Errorf("save checkpoint %q of %d bytes: %w", name, len(blob), err)
		}
		return nil
	}
	objects, err := s.objects(ctx)
	if err != nil {
		return err
	}
	s.writing.RLock()
	defer s.writing.RUnlock()
	meta := jetstream.ObjectMeta{Name: name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: checkpointChunk}}
	if _, err := objects.Put(ctx, meta, bytes.NewReader(blob)); err != nil {
		return fmt.Errorf("save checkpoint %q of %d bytes: %w", name, len(blob), err)
	}
	return nil
}

// LoadCheckpoint returns what was saved last under the name, nil when there is
// nothing. A checkpoint that is damaged (its SHA-256 differs) is an error.
func (s *Spool) LoadCheckpoint(ctx context.Context, name string) ([]byte, error) {
	objects, err := s.objects(ctx)
	if err != nil {
		return nil, err
	}
	object, err := objects.GetInfo(ctx, name)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load checkpoint %q: %w", name, err)
	}
	blob, err := s.pieces(ctx, object)
	if err != nil {
		return nil, fmt.Errorf("load checkpoint %q: %w", name, err)
	}
	return blob, nil
}

// pieces joins the pieces of a checkpoint. Each is asked for by itself: the
// client's own way is a cursor, which waits in vain for a piece that the disk
// has lost.
func (s *Spool) pieces(ctx context.Context, object *jetstream.ObjectInfo) ([]byte, error) {
	stream, err := s.current().append.Stream(ctx, "OBJ_"+bucketObjects)
	if err != nil {
		return nil, fmt.Errorf("open the checkpoints: %w", err)
	}
	blob := make([]byte, 0, object.Size)
	next := uint64(1)
	for i := range object.Chunks {
		m, err := stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(checkpointSubject+object.NUID))
		if err != nil {
			return nil, fmt.Errorf("read piece %d of %d: %w", i+1, object.Chunks, err)
		}
		blob = append(blob, m.Data...)
		next = m.Sequence + 1
	}
	sum := sha256.Sum256(blob)
	if digest := "SHA-256=" + base64.URLEncoding.EncodeToString(sum[:]); digest != object.Digest {
		return nil, fmt.Errorf("it is damaged: its SHA-256 is %s instead of %s", digest, object.Digest)
	}
	return blob, nil
}

func (s *Spool) objects(ctx context.Context) (jetstream.ObjectStore, error) {
	objects, err := s.current().append.ObjectStore(ctx, bucketObjects)
	if err != nil {
		return nil, fmt.Errorf("open the checkpoints: %w", err)
	}
	return objects, nil
}

// sweepCheckpoints makes the bucket and removes the pieces of checkpoints that
// a crash has left behind.
func (s *Spool) sweepCheckpoints(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	if s.cluster != nil {
		return s.sweepShared(ctx)
	}
	objects, err := s.link.append.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{
		Bucket: bucketObjects, Description: "haidang: checkpoints of followers",
		MaxBytes: maxCheckpoints, Storage: jetstream.FileStorage, Replicas: s.config.Replicas,
	})
	if err != nil {
		return fmt.Errorf("open the checkpoints: %w", err)
	}
	whole := map[string]bool{}
	list, err := objects.List(ctx)
	if err != nil && !errors.Is(err, jetstream.ErrNoObjectsFound) {
		return fmt.Errorf("list the checkpoints: %w", err)
	}
	for _, object := range list {
		whole[checkpointSubject+object.NUID] = true
	}
	stream, err := s.link.append.Stream(ctx, "OBJ_"+bucketObjects)
	if err != nil {
		return fmt.Errorf("open the checkpoints: %w", err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(checkpointSubject+">"))
	if err != nil {
		return fmt.Errorf("list the pieces of the checkpoints: %w", err)
	}
	for subject := range info.State.Subjects {
		if whole[subject] || !strings.HasPrefix(subject, checkpointSubject) {
			continue
		}
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
			return fmt.Errorf("remove the rest of a checkpoint: %w", err)
		}
	}
	return nil
}
