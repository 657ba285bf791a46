package influx

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/golang/snappy"
	"github.com/influxdata/influxdb/tsdb/engine/tsm1"
)

// A segment of the engine's write-ahead log is a sequence of entries: one byte
// for the type, four for the length (big endian), then that many bytes of
// snappy.
const (
	walHeaderBytes = 5
	// maxWALEntryBytes is far above what one write of ours makes.
	maxWALEntryBytes = 1 << 30
)

// A cutLog tells of a segment whose end was cut off.
type cutLog struct {
	path string
	kept int64 // bytes that are whole entries
	cut  int64 // bytes behind them
}

// repairLogs cuts incomplete entries off the ends of the write-ahead logs below
// dir. It must run before the engine opens them.
//
// A power cut, a full disk or a kill in the middle of a write leaves part of an
// entry behind. The engine drops that part while it loads, but it has opened
// the segment for appending before, at the old end: what it writes next lies
// behind a hole of zeros, is acknowledged, and is lost at the next start, which
// takes the hole for the end of the log.
func repairLogs(dir string) ([]cutLog, error) {
	var cuts []cutLog
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a new store
		}
		if err != nil || entry.IsDir() || filepath.Ext(path) != "."+tsm1.WALFileExtension {
			return err
		}
		cut, err := repairLog(path)
		if cut.cut > 0 {
			cuts = append(cuts, cut)
		}
		return err
	})
	if err != nil {
		return cuts, fmt.Errorf("repair the write-ahead log of InfluxDB: %w", err)
	}
	return cuts, nil
}

func repairLog(path string) (cutLog, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return cutLog{}, err
	}
	defer file.Close()
	stat, err := file.Stat()
	if err != nil {
		return cutLog{}, err
	}
	kept, err := wholeEntries(file, stat.Size())
	if err != nil || kept == stat.Size() {
		return cutLog{}, err
	}
	if err := file.Truncate(kept); err != nil {
		return cutLog{}, err
	}
	return cutLog{path: path, kept: kept, cut: stat.Size() - kept}, file.Sync()
}

// wholeEntries returns how many of the size bytes of a segment are entries that
// the engine can read.
func wholeEntries(r io.Reader, size int64) (int64, error) {
	in := bufio.NewReaderSize(r, 256<<10)
	var packed, plain []byte
	for at := int64(0); ; {
		var header [walHeaderBytes]byte
		if size-at < walHeaderBytes {
			return at, nil
		}
		if _, err := io.ReadFull(in, header[:]); err != nil {
			return at, err
		}
		length := int64(binary.BigEndian.Uint32(header[1:]))
		if length > size-at-walHeaderBytes {
			return at, nil
		}
		if int64(cap(packed)) < length {
			packed = make([]byte, length)
		}
		packed = packed[:length]
		if _, err := io.ReadFull(in, packed); err != nil {
			return at, err
		}
		var ok bool
		if plain, ok = readableEntry(header[0], packed, plain); !ok {
			return at, nil
		}
		at += walHeaderBytes + length
	}
}

// readableEntry reports whether the engine can read an entry. It returns the
// buffer that it used, for the next one.
func readableEntry(kind byte, packed, plain []byte) ([]byte, bool) {
	if n, err := snappy.DecodedLen(packed); err != nil || n > maxWALEntryBytes {
		return plain, false
	}
	plain, err := snappy.Decode(plain[:cap(plain)], packed)
	if err != nil {
		return plain, false
	}
	switch tsm1.WalEntryType(kind) {
	case tsm1.WriteWALEntryType:
		err = (&tsm1.WriteWALEntry{Values: map[string][]tsm1.Value{}}).UnmarshalBinary(plain)
	case tsm1.DeleteWALEntryType:
		err = (&tsm1.DeleteWALEntry{}).UnmarshalBinary(plain)
	case tsm1.DeleteRangeWALEntryType:
		err = (&tsm1.DeleteRangeWALEntry{}).UnmarshalBinary(plain)
	default:
		return plain, false
	}
	return plain, err == nil
}
