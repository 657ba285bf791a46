package spool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"
)

// identityFile, in Options.Dir, remembers the log of a cluster, so that a changed
// address does not lead to another one unnoticed: its positions and warnings
// would be those of somebody else.
const identityFile = "cluster.json"

// An identity tells the log of one cluster from that of another: a stream that is
// made again, or elsewhere, has another time of its making.
type identity struct {
	Cluster string               `json:"cluster"` // name, for people
	Made    map[string]time.Time `json:"made"`    // each stream
}

// readIdentity returns what the folder remembers.
func readIdentity(dir string) (known identity, err error) {
	path := filepath.Join(dir, identityFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return identity{}, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &known)
	}
	if err != nil {
		return identity{}, fmt.Errorf("read which cluster the log is in: %s: %w", path, err)
	}
	return known, nil
}

// remember adds to what the folder remembers. Parts that share it have to do with
// different streams.
func (i identity) remember(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("remember which cluster the log is in: %w", err)
	}
	defer folder.Close() // and so its lock
	if err := unix.Flock(int(folder.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("remember which cluster the log is in: lock %s: %w", dir, err)
	}
	known, err := readIdentity(dir)
	if err != nil {
		return err
	}
	before := len(known.Made)
	if known.Made == nil {
		known.Made = map[string]time.Time{}
	}
	maps.Copy(known.Made, i.Made)
	if len(known.Made) == before {
		return nil
	}
	known.Cluster = i.Cluster
	return known.write(dir)
}

// write remembers it; a power cut leaves either nothing or all.
func (i identity) write(dir string) error {
	text, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, identityFile)
	if err := replaceFile(path, append(text, '\n')); err != nil {
		return fmt.Errorf("remember which cluster the log is in: %w", err)
	}
	return nil
}

// replaceFile writes a file beside path and puts it in its place.
func replaceFile(path string, text []byte) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}()
	_, err = file.Write(text)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// identify returns the identity of the log behind the connection.
func (s *Spool) identify(ctx context.Context, streams []jetstream.StreamConfig) (identity, error) {
	i := identity{Cluster: s.link.append.Conn().ConnectedClusterName(), Made: map[string]time.Time{}}
	for _, one := range streams {
		made, err := madeAt(ctx, s.link.append, one.Name)
		if err != nil {
			return i, err
		}
		i.Made[one.Name] = made
	}
	return i, nil
}

func madeAt(ctx context.Context, js jetstream.JetStream, name string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return time.Time{}, fmt.Errorf("look at stream %s: %w", name, err)
	}
	return stream.CachedInfo().Created.UTC(), nil
}

// An otherLog is the error of a cluster that has not the log that is looked for.
type otherLog struct{ cluster, known, stream, is, was string }

func (o *otherLog) Error() string {
	return fmt.Sprintf("cluster %q does not have the log of this gateway, which was in %q: its stream %s %s, and not %s; if the gateway is to begin anew there, remove %s from its data folder",
		o.cluster, o.known, o.stream, o.is, o.was, filepath.Join("spool", identityFile))
}

// matches compares the streams with those that are known.
func (i identity) matches(ctx context.Context, js jetstream.JetStream) error {
	for name := range i.Made {
		if err := i.matchesStream(ctx, js, name); err != nil {
			return err
		}
	}
	return nil
}

func (i identity) matchesStream(ctx context.Context, js jetstream.JetStream, name string) error {
	was, known := i.Made[name]
	if !known {
		return nil
	}
	other := &otherLog{cluster: js.Conn().ConnectedClusterName(), known: i.Cluster, stream: name, was: "made at " + was.Format(time.RFC3339Nano)}
	made, err := madeAt(ctx, js, name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		other.is = "is missing"
		return other
	case err != nil:
		return err
	case !made.Equal(was):
		other.is = "was made at " + made.Format(time.RFC3339Nano)
		return other
	}
	return nil
}
