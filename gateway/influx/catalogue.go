package influx

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/golang/snappy"
	"github.com/influxdata/influxdb/services/meta"
	"github.com/influxdata/influxdb/tsdb/engine/tsm1"
)

// The catalogue, meta/meta.db, says which shard holds which time. It is small,
// has no checksum, and without it, or with one flipped bit of it, every reading
// that is stored is out of reach. So it is looked at before the engine opens it,
// and made anew from the shards when it does not fit them.
const catalogueFile = "meta.db"

// Lengths of shard groups that the engine chooses.
var groupLengths = [...]time.Duration{time.Hour, 24 * time.Hour, 7 * 24 * time.Hour}

// repairCatalogue returns what was wrong with the catalogue of the store in dir,
// nil when nothing was. The damaged one is kept beside it. keep is the retention,
// 0 for ever.
func repairCatalogue(dir string, keep time.Duration) (wrong, err error) {
	name := filepath.Join(dir, "meta", catalogueFile)
	shards, err := shardsIn(filepath.Join(dir, "data", Database, policy))
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) && len(shards) == 0 {
		return nil, nil // a new store
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the InfluxDB catalogue: %w", err)
	}
	if wrong = checkCatalogue(text, shards); wrong == nil {
		return nil, nil
	}
	fresh, err := rebuildCatalogue(dir, shards, keep)
	if err != nil {
		return wrong, fmt.Errorf("make the InfluxDB catalogue anew: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
		return wrong, fmt.Errorf("make the InfluxDB catalogue anew: %w", err)
	}
	if len(text) > 0 {
		if err := os.WriteFile(name+".damaged", text, 0o600); err != nil {
			return wrong, fmt.Errorf("set the damaged InfluxDB catalogue aside: %w", err)
		}
	}
	return wrong, writeCatalogue(name, fresh)
}

// shardsIn lists the shards that have a folder.
func shardsIn(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the shards of InfluxDB: %w", err)
	}
	var ids []uint64
	for _, entry := range entries {
		if id, err := strconv.ParseUint(entry.Name(), 10, 64); err == nil && entry.IsDir() {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// checkCatalogue returns what shows that a catalogue is not as the engine wrote
// it, or does not fit the shards.
func checkCatalogue(text []byte, shards []uint64) error {
	var data meta.Data
	if err := data.UnmarshalBinary(text); err != nil {
		return err
	}
	rp, err := data.RetentionPolicy(Database, policy)
	if rp == nil || err != nil {
		if len(shards) == 0 && len(data.Databases) == 0 && data.Index > 0 {
			return nil // the engine has just made it
		}
		return fmt.Errorf("it does not have the database %s with the policy %s", Database, policy)
	}
	if db := data.Database(Database); db.DefaultRetentionPolicy != policy {
		return fmt.Errorf("its default policy is %q", db.DefaultRetentionPolicy)
	}
	if rp.FutureWriteLimit != 0 || rp.PastWriteLimit != 0 || !slices.Contains(groupLengths[:], rp.ShardGroupDuration) {
		return fmt.Errorf("its policy has groups of %s and limits %s and %s", rp.ShardGroupDuration, rp.PastWriteLimit, rp.FutureWriteLimit)
	}
	known := map[uint64]bool{}
	groups := slices.Clone(rp.ShardGroups)
	slices.SortFunc(groups, func(a, b meta.ShardGroupInfo) int { return a.StartTime.Compare(b.StartTime) })
	var end time.Time
	for _, g := range groups {
		if err := checkGroup(g, data.MaxShardGroupID); err != nil {
			return err
		}
		if !g.Deleted() {
			if g.StartTime.Before(end) {
				return fmt.Errorf("group %d overlaps the one before it", g.ID)
			}
			end = g.EndTime
		}
		for _, s := range g.Shards {
			if known[s.ID] || s.ID > data.MaxShardID {
				return fmt.Errorf("shard %d is there twice, or beyond the last one", s.ID)
			}
			known[s.ID] = true
		}
	}
	for _, id := range shards {
		if !known[id] {
			return fmt.Errorf("it does not know shard %d, which is there", id)
		}
	}
	return nil
}

// checkGroup: the engine's groups begin and end on the hour and are no longer
// than the longest; what was deleted was so in our time.
func checkGroup(g meta.ShardGroupInfo, most uint64) error {
	length := g.EndTime.Sub(g.StartTime)
	whole := g.StartTime.Truncate(time.Hour).Equal(g.StartTime) && (g.EndTime.Truncate(time.Hour).Equal(g.EndTime) || g.EndTime.Year() > 2250)
	if length <= 0 || length > groupLengths[len(groupLengths)-1] || !whole || g.ID > most || g.ID == 0 {
		return fmt.Errorf("group %d is from %s to %s", g.ID, g.StartTime, g.EndTime)
	}
	for _, t := range []time.Time{g.DeletedAt, g.TruncatedAt} {
		if !t.IsZero() && t.Year() < 2020 {
			return fmt.Errorf("group %d was deleted or cut at %s", g.ID, t)
		}
	}
	return nil
}

// rebuildCatalogue makes a catalogue of the shards by the times of what they
// hold. Shards that hold nothing are left out.
func rebuildCatalogue(dir string, shards []uint64, keep time.Duration) (*meta.Data, error) {
	length := groupLengths[2]
	switch {
	case keep == 0 || keep >= 180*24*time.Hour: // as the engine chooses
	case keep >= 2*24*time.Hour:
		length = groupLengths[1]
	default:
		length = groupLengths[0]
	}
	rp := meta.RetentionPolicyInfo{Name: policy, ReplicaN: 1, Duration: keep, ShardGroupDuration: length}
	data := &meta.Data{Index: 2, Term: 1}
	for _, id := range shards {
		first, last, err := timesOf(dir, id)
		if err != nil {
			return nil, err
		}
		data.MaxShardID = max(data.MaxShardID, id)
		if first > last {
			continue
		}
		g := meta.ShardGroupInfo{ID: id, Shards: []meta.ShardInfo{{ID: id}}}
		for _, d := range groupLengths { // the shortest that holds it all, from ours on
			g.StartTime = time.Unix(0, first).UTC().Truncate(d)
			g.EndTime = g.StartTime.Add(d)
			if d >= length && g.EndTime.UnixNano() > last {
				break
			}
		}
		rp.ShardGroups = append(rp.ShardGroups, g)
	}
	slices.SortFunc(rp.ShardGroups, func(a, b meta.ShardGroupInfo) int {
		return cmp.Or(a.StartTime.Compare(b.StartTime), cmp.Compare(a.ID, b.ID))
	})
	data.MaxShardGroupID = data.MaxShardID
	data.Databases = []meta.DatabaseInfo{{Name: Database, DefaultRetentionPolicy: policy, RetentionPolicies: []meta.RetentionPolicyInfo{rp}}}
	return data, nil
}

// timesOf returns the first and the last time in a shard, Unix ns; first is
// after last when it holds nothing that can be read.
func timesOf(dir string, id uint64) (first, last int64, err error) {
	first, last = math.MaxInt64, math.MinInt64
	shard := filepath.Join(Database, policy, strconv.FormatUint(id, 10))
	files, err := filepath.Glob(filepath.Join(dir, "data", shard, "*."+tsm1.TSMFileExtension))
	if err != nil {
		return first, last, err
	}
	for _, name := range files {
		if from, to, err := timesOfFile(name); err == nil { // the engine tells of one that is damaged
			first, last = min(first, from), max(last, to)
		}
	}
	logs, err := filepath.Glob(filepath.Join(dir, "wal", shard, "*."+tsm1.WALFileExtension))
	if err != nil {
		return first, last, err
	}
	for _, name := range logs {
		from, to, err := timesOfLog(name)
		if err != nil {
			return first, last, err
		}
		first, last = min(first, from), max(last, to)
	}
	return first, last, nil
}

// timesOfFile opens a data file; the error says that it cannot be opened.
func timesOfFile(name string) (first, last int64, err error) {
	file, err := os.Open(name)
	if err != nil {
		return 0, 0, err
	}
	defer func() { // the reader trusts the lengths that it finds
		if p := recover(); p != nil {
			err = errors.Join(fmt.Errorf("%s: %v", name, p), file.Close())
		}
	}()
	reader, err := tsm1.NewTSMReader(file) // which closes the file
	if err != nil {
		return 0, 0, errors.Join(err, file.Close())
	}
	first, last = reader.TimeRange()
	return first, last, reader.Close()
}

// timesOfLog looks through a segment of the write-ahead log; see repairLogs,
// which has cut off what is not whole.
func timesOfLog(name string) (first, last int64, err error) {
	first, last = math.MaxInt64, math.MinInt64
	text, err := os.ReadFile(name)
	if err != nil {
		return first, last, err
	}
	for len(text) >= walHeaderBytes {
		length := int(binary.BigEndian.Uint32(text[1:]))
		if length > len(text)-walHeaderBytes {
			break
		}
		entry := tsm1.WriteWALEntry{Values: map[string][]tsm1.Value{}}
		plain, err := snappy.Decode(nil, text[walHeaderBytes:walHeaderBytes+length])
		if err == nil && tsm1.WalEntryType(text[0]) == tsm1.WriteWALEntryType && entry.UnmarshalBinary(plain) == nil {
			for _, values := range entry.Values {
				for _, v := range values {
					first, last = min(first, v.UnixNano()), max(last, v.UnixNano())
				}
			}
		}
		text = text[walHeaderBytes+length:]
	}
	return first, last, nil
}

func writeCatalogue(name string, data *meta.Data) error {
	text, err := data.MarshalBinary()
	if err != nil {
		return fmt.Errorf("write the InfluxDB catalogue: %w", err)
	}
	file, err := os.Create(name + ".new")
	if err != nil {
		return fmt.Errorf("write the InfluxDB catalogue: %w", err)
	}
	out := bufio.NewWriter(file)
	_, err = out.Write(text)
	if err = errors.Join(err, out.Flush(), file.Sync(), file.Close()); err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		return fmt.Errorf("write the InfluxDB catalogue: %w", err)
	}
	return nil
}

// repairShards renames the data files that cannot be opened to .bad, returns
// their new names, and removes the lists of fields. It must run before the engine
// opens the shards: that keeps a shard with such a file shut, for new readings
// too, and a flipped bit in a list of fields ends the process. The engine makes
// the lists anew from the data.
func repairShards(dir string) (bad []string, err error) {
	for _, pattern := range []string{"fields.idx", "fields.idxl"} {
		names, err := filepath.Glob(filepath.Join(dir, "*", pattern))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if err := os.Remove(name); err != nil {
				return nil, fmt.Errorf("repair the shards of InfluxDB: %w", err)
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "*."+tsm1.TSMFileExtension))
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		if _, _, err := timesOfFile(name); err == nil {
			continue
		}
		aside := name + "." + tsm1.BadTSMFileExtension
		if err := os.Rename(name, aside); err != nil {
			return bad, fmt.Errorf("set a damaged data file of InfluxDB aside: %w", err)
		}
		bad = append(bad, aside)
	}
	return bad, nil
}
