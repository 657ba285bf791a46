package influx

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/influxdata/influxdb/coordinator"
	"github.com/influxdata/influxdb/query"
	"github.com/influxdata/influxdb/services/httpd"
	"github.com/influxdata/influxdb/services/meta"
	"github.com/influxdata/influxdb/services/retention"
	"github.com/influxdata/influxdb/toml"
	"github.com/influxdata/influxdb/tsdb"
	"go.uber.org/zap"

	// The storage format and the index register themselves.
	_ "github.com/influxdata/influxdb/tsdb/engine"
	_ "github.com/influxdata/influxdb/tsdb/index"
)

// Database is the name of the embedded engine's database.
const Database = "haidang"

// policy is the only retention policy of Database.
const policy = "autogen"

// engineVersion is what the port tells of itself; Grafana chooses its dialect
// by it.
const engineVersion = "1.13.2"

// Bounds of a query, so that no dashboard takes the memory of the box.
const (
	queryTimeout     = time.Minute
	maxQueryBuckets  = 1_000_000 // GROUP BY time() intervals of one SELECT
	maxUnchunkedRows = 100_000   // beyond it the answer says "partial": true
)

// engine is the storage engine of InfluxDB, open in a folder.
type engine struct {
	meta    *meta.Client
	store   *tsdb.Store
	shards  *shards // between points and store
	points  *coordinator.PointsWriter
	queries *query.Executor
	expiry  *retention.Service // never opened: the patrol calls its DeletionCheck
	handler http.Handler       // the whole API, for this process only
}

// openEngine opens the engine in a folder that this process has locked.
func openEngine(dir string, cfg Config, log *slog.Logger) (_ *engine, err error) {
	e := &engine{}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	cuts, err := repairLogs(filepath.Join(dir, "wal"))
	for _, c := range cuts {
		log.Warn("cut an incomplete entry off InfluxDB's write-ahead log, as a power cut or a full disk leaves it",
			"path", c.path, "kept_bytes", c.kept, "cut_bytes", c.cut)
	}
	if err != nil {
		return nil, err
	}
	wrong, err := repairCatalogue(dir, cfg.Retention.longest())
	if wrong != nil {
		log.Error("the catalogue of InfluxDB was damaged and is made anew from the shards", "path", filepath.Join(dir, "meta", catalogueFile), "damage", wrong)
	}
	if err != nil {
		return nil, err
	}
	zlog := engineLog(log)
	if err := e.openMeta(filepath.Join(dir, "meta"), cfg.Retention.longest(), zlog); err != nil {
		return nil, err
	}
	damaged, err := repairShards(filepath.Join(dir, "data", Database, policy))
	e.tellSetAside(log, damaged)
	if err != nil {
		return nil, err
	}
	if err := makeShards(dir); err != nil {
		return nil, err
	}
	if err := e.openStore(dir, cfg, zlog); err != nil {
		return nil, err
	}
	e.points = coordinator.NewPointsWriter()
	e.points.TSDBStore = e.shards
	e.points.MetaClient = e.meta
	e.points.Subscriber = nobody{}
	e.points.WriteTimeout = cfg.Timeout.Std()
	e.points.WithLogger(zlog)
	if err := e.points.Open(); err != nil {
		return nil, fmt.Errorf("open the InfluxDB writer: %w", err)
	}
	e.openQueries()
	e.expiry = retention.NewService(retention.Config{Enabled: true, CheckInterval: toml.Duration(time.Hour)})
	e.expiry.SetOSSMetaClient(e.meta)
	e.expiry.TSDBStore = e.store
	e.expiry.DropShardMetaRef = retention.OSSDropShardMetaRef(e.meta)
	e.expiry.WithLogger(zlog)
	e.handler = e.newHandler(log, zlog)
	return e, nil
}

// openMeta opens the catalogue of databases and shards and makes our database.
func (e *engine) openMeta(dir string, keep time.Duration, zlog *zap.Logger) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("make the InfluxDB catalogue: %w", err)
	}
	cfg := meta.NewConfig()
	cfg.Dir = dir
	cfg.RetentionAutoCreate = false
	e.meta = meta.NewClient(cfg)
	e.meta.WithLogger(zlog)
	if err := e.meta.Open(); err != nil {
		e.meta = nil
		return fmt.Errorf("open the InfluxDB catalogue in %s: %w", dir, err)
	}
	rp, err := e.meta.RetentionPolicy(Database, policy)
	if err == nil && rp != nil {
		if rp.Duration == keep {
			return nil
		}
		// 0 lets the engine choose the length of new shard groups again.
		update := &meta.RetentionPolicyUpdate{Duration: &keep, ShardGroupDuration: new(time.Duration)}
		if err := e.meta.UpdateRetentionPolicy(Database, policy, update, true); err != nil {
			return fmt.Errorf("set the retention of InfluxDB to %s: %w", keep, err)
		}
		return nil
	}
	one := 1
	spec := &meta.RetentionPolicySpec{Name: policy, ReplicaN: &one, Duration: &keep}
	if _, err := e.meta.CreateDatabaseWithRetentionPolicy(Database, spec); err != nil {
		return fmt.Errorf("create the InfluxDB database %s: %w", Database, err)
	}
	return nil
}

// openStore opens the shards. What was acknowledged is on disk: a sync delay of
// 0 makes every write wait for the fsync of the write-ahead log.
func (e *engine) openStore(dir string, cfg Config, zlog *zap.Logger) error {
	data := tsdb.NewConfig()
	data.Dir = filepath.Join(dir, "data")
	data.WALDir = filepath.Join(dir, "wal")
	data.WALFsyncDelay = 0
	data.Index = tsdb.InmemIndexName // tsi1 has data races
	data.QueryLogEnabled = false
	data.CacheMaxMemorySize = toml.Size(cfg.Cache)
	data.CacheSnapshotMemorySize = toml.Size(cfg.Cache / 4)
	data.MaxConcurrentCompactions = 1
	if err := data.Validate(); err != nil {
		return fmt.Errorf("configure the InfluxDB engine: %w", err)
	}
	store := tsdb.NewStore(data.Dir)
	store.EngineOptions.Config = data
	store.EngineOptions.EngineVersion = data.Engine
	store.EngineOptions.IndexVersion = data.Index
	store.EngineOptions.MonitorDisabled = true // shards do its work
	store.WithLogger(zlog)
	if err := store.Open(); err != nil {
		store.Close()
		return fmt.Errorf("open the InfluxDB engine in %s: %w", data.Dir, err)
	}
	e.store, e.shards = store, newShards(store)
	e.shards.keep()
	return nil
}

// tellSetAside tells which time the readings are of that a damaged file held.
func (e *engine) tellSetAside(log *slog.Logger, names []string) {
	for _, name := range names {
		var from, to time.Time
		id, _ := strconv.ParseUint(filepath.Base(filepath.Dir(name)), 10, 64) // else no group has it
		if rp, err := e.meta.RetentionPolicy(Database, policy); err == nil && rp != nil {
			for _, g := range rp.ShardGroups {
				if len(g.Shards) > 0 && g.Shards[0].ID == id {
					from, to = g.StartTime, g.EndTime
				}
			}
		}
		log.Error("a data file of InfluxDB is damaged and set aside: stored readings are lost", "path", name, "readings_from", from, "readings_before", to)
	}
}

func (e *engine) openQueries() {
	e.queries = query.NewExecutor()
	e.queries.TaskManager.QueryTimeout = queryTimeout
	e.queries.StatementExecutor = &coordinator.StatementExecutor{
		MetaClient:  e.meta,
		TaskManager: e.queries.TaskManager,
		TSDBStore:   e.store,
		ShardMapper: &coordinator.LocalShardMapper{
			MetaClient: e.meta,
			TSDBStore:  coordinator.LocalTSDBStore{Store: e.store},
		},
		PointsWriter:      e.points,
		MaxSelectBucketsN: maxQueryBuckets,
	}
}

func (e *engine) newHandler(log *slog.Logger, zlog *zap.Logger) http.Handler {
	cfg := httpd.NewConfig()
	cfg.LogEnabled = false
	cfg.PprofEnabled = false
	cfg.MaxBodySize = 0 // only our own writer sends bodies, in batches of batchLines
	cfg.MaxRowLimit = maxUnchunkedRows
	h := httpd.NewHandler(cfg)
	h.Version = engineVersion
	h.BuildType = "OSS"
	h.MetaClient = e.meta
	h.QueryExecutor = e.queries
	h.PointsWriter = e.points
	h.Logger = zlog
	h.CLFLogger = slog.NewLogLogger(log.With("in", "influx").Handler(), slog.LevelError)
	return h
}

// nobody is the subscription service: nobody subscribes to the engine, the log
// has followers.
type nobody struct{}

func (nobody) Send(*coordinator.WritePointsRequest) {}

// stopQueries ends the queries that are running and refuses new ones.
func (e *engine) stopQueries() { e.queries.Close() } // never fails

// close closes whatever openEngine has opened.
// Nothing needs to be flushed: what was acknowledged is in the write-ahead log.
func (e *engine) close() error {
	var errs []error
	if e.points != nil {
		errs = append(errs, e.points.Close())
	}
	if e.store != nil {
		e.shards.close()
		errs = append(errs, e.store.Close())
	}
	if e.meta != nil {
		errs = append(errs, e.meta.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close the InfluxDB engine: %w", err)
	}
	return nil
}

// damage returns an error that names the shards that could not be opened, nil
// when all are open.
func (e *engine) damage() error {
	bad := e.store.GetBadShardList()
	if len(bad) == 0 {
		return nil
	}
	var lines []string
	for id, err := range bad {
		lines = append(lines, fmt.Sprintf("shard %d: %v", id, err))
	}
	return fmt.Errorf("%d shards of InfluxDB cannot be opened: %s", len(bad), strings.Join(lines, "; "))
}
