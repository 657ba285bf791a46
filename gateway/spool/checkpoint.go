package spool

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	checkpointChunk   = 256 << 10
	maxCheckpoints    = 1 << 30 // bytes of all checkpoints
	checkpointSubject = "$O." + bucketObjects + ".C."
	checkpointMeta    = "$O." + bucketObjects + ".M."
)

// secondMark is behind the name of the second object of a checkpoint.
const secondMark = "~"

// SaveCheckpoint stores what a follower made of the log, under a name, in place
// of what was there: after a crash there is either the old one or the new one,
// whole. It is on disk when SaveCheckpoint returns. The one before it stays there
// too, should the disk damage the newer one: a follower that wants to go on from
// it must not give the frames since then free.
//
// RoleRules and RoleStore of a log of several partitions have their own under each
// name.
func (s *Spool) SaveCheckpoint(ctx context.Context, name string, blob []byte) error {
	name = s.checkpointOf(name)
	if part := s.options.Part; part.shared() {
		return fmt.Errorf("save checkpoint %q: %s has none, any number may have it", name, part)
	}
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
	s.saving.Lock()
	defer s.saving.Unlock()
	object, known := s.saveTo[name]
	if !known {
		if object, err = s.olderObject(ctx, name); err != nil {
			return fmt.Errorf("save checkpoint %q: %w", name, err)
		}
	}
	s.writing.RLock()
	defer s.writing.RUnlock()
	meta := jetstream.ObjectMeta{Name: object, Opts: &jetstream.ObjectMetaOptions{ChunkSize: checkpointChunk}}
	if _, err := objects.Put(ctx, meta, bytes.NewReader(blob)); err != nil {
		return fmt.Errorf("save checkpoint %q of %d bytes: %w", name, len(blob), err)
	}
	s.saveTo[name] = otherObject(object)
	return nil
}

// checkpointOf returns the name under which a checkpoint is kept: that of readings
// in several partitions has the number of its partition.
func (s *Spool) checkpointOf(name string) string {
	if part := s.options.Part; part.one() && len(s.parts) > 1 {
		return name + "." + strconv.Itoa(part.Partition)
	}
	return name
}

func otherObject(object string) string {
	if name, second := strings.CutSuffix(object, secondMark); second {
		return name
	}
	return object + secondMark
}

// olderObject returns which of the two objects of a checkpoint is to be replaced.
func (s *Spool) olderObject(ctx context.Context, name string) (string, error) {
	saved, err := s.saved(ctx, name)
	if err != nil || len(saved) == 0 {
		return name, err
	}
	return otherObject(saved[0].info.Name), nil
}

// A savedObject is a checkpoint and the sequence at which it was saved.
type savedObject struct {
	seq  uint64
	info *jetstream.ObjectInfo
}

// saved returns the checkpoints of a name, the newest first.
func (s *Spool) saved(ctx context.Context, name string) ([]savedObject, error) {
	stream, err := s.current().append.Stream(ctx, "OBJ_"+bucketObjects)
	if err != nil {
		return nil, fmt.Errorf("open the checkpoints: %w", err)
	}
	var out []savedObject
	for _, object := range []string{name, name + secondMark} {
		m, err := stream.GetLastMsgForSubject(ctx, checkpointMeta+base64.URLEncoding.EncodeToString([]byte(object)))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		info := &jetstream.ObjectInfo{}
		if err := json.Unmarshal(m.Data, info); err != nil || info.Deleted {
			continue // what is damaged was told when the log was opened
		}
		out = append(out, savedObject{m.Sequence, info})
	}
	slices.SortFunc(out, func(a, b savedObject) int { return cmp.Compare(b.seq, a.seq) })
	return out, nil
}

// LoadCheckpoint returns what was saved last under the name, nil when there is
// nothing. Of a checkpoint that is damaged (its SHA-256 differs) it returns the one
// before it, and an error when that is damaged too.
func (s *Spool) LoadCheckpoint(ctx context.Context, name string) ([]byte, error) {
	name = s.checkpointOf(name)
	for tries := 0; ; tries++ {
		saved, err := s.saved(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("load checkpoint %q: %w", name, err)
		}
		blob, err := s.load(ctx, name, saved)
		if err == nil || s.cluster == nil || tries == loadTries {
			return blob, err
		}
		// An owner that has just lost the log may have replaced it meanwhile.
		if again, e := s.saved(ctx, name); e != nil || len(again) == 0 || again[0].seq == saved[0].seq {
			return nil, err
		}
	}
}

const loadTries = 2

// load returns the first of the checkpoints that is whole.
func (s *Spool) load(ctx context.Context, name string, saved []savedObject) ([]byte, error) {
	var errs []error
	for _, object := range saved {
		blob, err := s.pieces(ctx, object.info)
		if err == nil {
			if len(errs) > 0 {
				s.logger.Error("a checkpoint is damaged; the one before it is taken", "checkpoint", name, "error", errs[0])
			}
			return blob, nil
		}
		errs = append(errs, fmt.Errorf("load checkpoint %q: %w", name, err))
	}
	return nil, errors.Join(errs...)
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
	_, err := s.link.append.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{
		Bucket: bucketObjects, Description: "haidang: checkpoints of followers",
		MaxBytes: maxCheckpoints, Storage: jetstream.FileStorage, Replicas: s.config.Replicas,
	})
	if err != nil {
		return fmt.Errorf("open the checkpoints: %w", err)
	}
	whole := map[string]bool{}
	names, err := s.subjects(ctx, "OBJ_"+bucketObjects, checkpointMeta)
	if err != nil {
		return fmt.Errorf("list the checkpoints: %w", err)
	}
	for _, encoded := range names {
		name, err := base64.URLEncoding.DecodeString(encoded)
		if err != nil {
			continue // not ours
		}
		saved, err := s.saved(ctx, strings.TrimSuffix(string(name), secondMark))
		if err != nil {
			return fmt.Errorf("list the checkpoints: %w", err)
		}
		for _, object := range saved {
			whole[checkpointSubject+object.info.NUID] = true
		}
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
