package spool

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"haidang/gateway/telemetry"
)

// ourMark in the metadata of a stream says that this program made it and may
// change its bounds.
const (
	ourMark      = "haidang"
	ourMarkValue = "1"
)

// partitionsMark, in the metadata of the streams of owners and of readings, is how
// many partitions the log has. Those without it are of a log that has one.
const partitionsMark = "haidang_partitions"

// wantedStreams are the streams of a log in a cluster; that of the owners is the
// first. All of them are read through their leaders (AllowDirect is off): a
// replica may lag behind.
func (s *Spool) wantedStreams(config Config) []jetstream.StreamConfig {
	base := func(name, what string, subjects ...string) jetstream.StreamConfig {
		return jetstream.StreamConfig{
			Name: name, Description: "haidang: " + what, Subjects: subjects,
			Storage: jetstream.FileStorage, Replicas: config.Replicas,
			Metadata: map[string]string{ourMark: ourMarkValue},
		}
	}
	owners := base(streamOwners, "who has the log", ownerPrefix+">", epochPrefix+">")
	mark := func(c *jetstream.StreamConfig) { c.Metadata[partitionsMark] = strconv.Itoa(config.Partitions) }
	mark(&owners)
	owners.MaxMsgsPerSubject, owners.MaxBytes, owners.AllowMsgTTL = 1, 8<<20, true
	positions := base("KV_"+bucketKV, "positions of followers", "$KV."+bucketKV+".>")
	positions.MaxMsgsPerSubject, positions.MaxBytes, positions.AllowRollup = 1, 16<<20, true
	positions.Discard = jetstream.DiscardNew
	checkpoints := base("OBJ_"+bucketObjects, "checkpoints of followers", "$O."+bucketObjects+".C.>", "$O."+bucketObjects+".M.>")
	checkpoints.MaxBytes, checkpoints.AllowRollup, checkpoints.Discard = maxCheckpoints, true, jetstream.DiscardNew
	all := []jetstream.StreamConfig{owners, positions, checkpoints}
	for _, log := range s.places(config) {
		one := streamConfig(config, log)
		one.Metadata = map[string]string{ourMark: ourMarkValue}
		if log.kind == logReadings {
			mark(&one)
		}
		all = append(all, one)
	}
	return all
}

// agree sees to it that the cluster has the streams, as they must be. It makes
// those that are missing, unless the folder knows that they were there.
func (s *Spool) agree(ctx context.Context, known identity, wanted []jetstream.StreamConfig) error {
	for _, want := range wanted {
		if err := known.matchesStream(ctx, s.link.append, want.Name); err != nil {
			return err
		}
		if err := s.agreeOn(ctx, want); err != nil {
			return err
		}
	}
	return nil
}

func (s *Spool) agreeOn(ctx context.Context, want jetstream.StreamConfig) error {
	ctx, cancel := context.WithTimeout(ctx, 2*askPatience)
	defer cancel()
	stream, err := s.link.append.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = s.link.append.CreateStream(ctx, want)
		if err == nil {
			return nil
		}
		if !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return fmt.Errorf("make stream %s of %s in %d replicas: %w", want.Name, telemetry.Size(want.MaxBytes), want.Replicas, err)
		}
		stream, err = s.link.append.Stream(ctx, want.Name) // somebody has just made it
	}
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", want.Name, err)
	}
	have := stream.CachedInfo().Config
	ours := have.Metadata[ourMark] == ourMarkValue
	if err := samePartitions(have, want); err != nil {
		return err
	}
	widened := ours && want.Name == streamOwners && subjectsOf(have) == narrowOwners
	if widened { // it is from before there were parts
		have.Subjects = want.Subjects
	}
	differs := disagreement(have, want)
	bounds := boundsDiffer(have, want)
	if !ours {
		differs = append(differs, bounds...)
	}
	if len(differs) > 0 {
		return fmt.Errorf("stream %s is not as it must be: %s", want.Name, strings.Join(differs, "; "))
	}
	if len(bounds) == 0 && !widened {
		return nil
	}
	changed := have // nothing but the bounds: what an operator set besides stays
	changed.MaxBytes, changed.MaxAge, changed.Discard, changed.Duplicates = want.MaxBytes, want.MaxAge, want.Discard, want.Duplicates
	changed.Metadata = maps.Clone(have.Metadata)
	if _, err := s.link.append.UpdateStream(ctx, changed); err != nil {
		return fmt.Errorf("change the bounds of stream %s: %w", want.Name, err)
	}
	return nil
}

// narrowOwners were the subjects of the owners before there were parts.
const narrowOwners = "epochs.gateway owners.gateway"

// samePartitions says that the log has another number of partitions than is
// configured.
func samePartitions(have, want jetstream.StreamConfig) error {
	must, says := want.Metadata[partitionsMark]
	if !says {
		return nil
	}
	is, said := have.Metadata[partitionsMark]
	if !said && have.Metadata[ourMark] == ourMarkValue {
		is, said = "1", true
	}
	if said && is != must {
		return fmt.Errorf("the log has %s partitions and not %s: spool.partitions is set once, before the first start (stream %s remembers it)", is, must, have.Name)
	}
	return nil
}

func subjectsOf(s jetstream.StreamConfig) string {
	return strings.Join(slices.Sorted(slices.Values(s.Subjects)), " ")
}

// disagreement names what makes a stream unfit for the log, whoever made it.
func disagreement(have, want jetstream.StreamConfig) (differs []string) {
	unlike := func(what string, is, must any) {
		differs = append(differs, fmt.Sprintf("%s is %v and must be %v", what, is, must))
	}
	if subjectsOf(have) != subjectsOf(want) {
		unlike("subjects", "["+subjectsOf(have)+"]", "["+subjectsOf(want)+"]")
	}
	if have.Retention != want.Retention {
		unlike("retention", have.Retention, want.Retention)
	}
	if have.Storage != want.Storage {
		unlike("storage", have.Storage, want.Storage)
	}
	if have.Replicas != want.Replicas {
		differs = append(differs, fmt.Sprintf("replicas is %d and must be %d (spool.replicas)", have.Replicas, want.Replicas))
	}
	if unlimited(have.MaxMsgsPerSubject) != unlimited(want.MaxMsgsPerSubject) {
		unlike("max_msgs_per_subject", have.MaxMsgsPerSubject, unlimited(want.MaxMsgsPerSubject))
	}
	if have.MaxMsgs > 0 {
		unlike("max_msgs", have.MaxMsgs, -1)
	}
	if have.MaxMsgSize > 0 && int64(have.MaxMsgSize) < smallestPayload {
		unlike("max_msg_size", have.MaxMsgSize, serverMaxPayload)
	}
	for _, flag := range []struct {
		name     string
		is, must bool
	}{
		{"allow_direct", have.AllowDirect, want.AllowDirect}, {"allow_rollup_hdrs", have.AllowRollup || !want.AllowRollup, true},
		{"allow_msg_ttl", have.AllowMsgTTL || !want.AllowMsgTTL, true},
		{"no_ack", have.NoAck, false}, {"sealed", have.Sealed, false}, {"deny_purge", have.DenyPurge, false},
		{"mirror", have.Mirror != nil, false}, {"sources", len(have.Sources) > 0, false}, {"subject_transform", have.SubjectTransform != nil, false},
		{"persist_mode async", have.PersistMode == jetstream.AsyncPersistMode, false},
	} {
		if flag.is != flag.must {
			unlike(flag.name, flag.is, flag.must)
		}
	}
	return differs
}

// boundsDiffer names the bounds that differ. They follow the configuration in a
// stream that is ours.
func boundsDiffer(have, want jetstream.StreamConfig) (differs []string) {
	if unlimited(have.MaxBytes) != unlimited(want.MaxBytes) {
		differs = append(differs, fmt.Sprintf("max_bytes is %d and must be %d (spool.max_bytes)", have.MaxBytes, want.MaxBytes))
	}
	if have.MaxAge != want.MaxAge {
		differs = append(differs, fmt.Sprintf("max_age is %s and must be %s (spool.max_age)", have.MaxAge, want.MaxAge))
	}
	if have.Discard != want.Discard {
		differs = append(differs, fmt.Sprintf("discard is %v and must be %v (spool.full)", have.Discard, want.Discard))
	}
	if have.Duplicates < min(want.Duplicates, 2*time.Minute) {
		differs = append(differs, fmt.Sprintf("duplicate_window is %s and must be %s", have.Duplicates, want.Duplicates))
	}
	return differs
}

// unlimited makes the ways to say "no bound" one.
func unlimited(n int64) int64 {
	if n <= 0 {
		return -1
	}
	return n
}
