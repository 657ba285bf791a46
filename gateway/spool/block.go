package spool

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"math/bits"
	"time"

	"github.com/minio/highwayhash"
)

// A block of JetStream's file store, <stream>/msgs/<n>.blk, is a sequence of
// records, little endian (nats-server 2.15, server/filestore.go,
// writeMsgRecordLocked):
//
//	length(4) sequence(8) time(8) length of the subject(2) subject
//	[length of the header(4) header] payload checksum(8)
//
// where the highest bit of the first length says that there is a header, the
// highest of the sequence that the message is erased and the second highest that
// the record only says that another message is gone. The checksum is HighwayHash-64
// of sequence, time, subject, header and payload, so of everything but the
// lengths, with the SHA-256 of "<stream>-<n>" as its key. TestBlockFormat checks
// all this against the server that is linked in.
const (
	recordHead = 22
	recordSum  = 8
	// maxRecord is above what our streams take: serverMaxPayload and a header.
	maxRecord = 2 << 20

	withHeader = 1 << 31
	erased     = 1 << 63
	tombstone  = 1 << 62
)

// A record is a whole message in a block.
type record struct {
	from, to int
	seq      uint64 // without its bits
	time     int64  // Unix ns
	buried   bool   // it says that the message of that sequence is gone
	gone     bool   // it is that of an erased message
}

// A sealer reads and writes the records of one block.
type sealer struct{ hash hash.Hash64 }

func newSealer(stream string, block int) sealer {
	key := sha256.Sum256(fmt.Appendf(nil, "%s-%d", stream, block))
	h, _ := highwayhash.New64(key[:]) // the key has the right length
	return sealer{h}
}

// read returns the record that begins at an offset, if it is whole.
func (s sealer) read(block []byte, from int) (record, bool) {
	buf := block[from:]
	if len(buf) < recordHead+recordSum {
		return record{}, false
	}
	length := binary.LittleEndian.Uint32(buf)
	headed := length&withHeader != 0
	length &^= withHeader
	if length < recordHead+recordSum || length > maxRecord || int(length) > len(buf) {
		return record{}, false
	}
	body := buf[recordHead : length-recordSum]
	subject := int(binary.LittleEndian.Uint16(buf[20:]))
	if subject > len(body) {
		return record{}, false
	}
	rest := body[subject:]
	if headed {
		if len(rest) < 4 {
			return record{}, false
		}
		n := binary.LittleEndian.Uint32(rest)
		rest = rest[4:]
		if int64(n) > int64(len(rest)) || !isHeader(rest[:n]) {
			return record{}, false
		}
	}
	if s.sum(buf[4:20], body[:subject], rest) != binary.LittleEndian.Uint64(buf[length-recordSum:]) {
		return record{}, false
	}
	return placed(buf, from, int(length)), true
}

// placed reads a head.
func placed(buf []byte, from, length int) record {
	seq := binary.LittleEndian.Uint64(buf[4:])
	return record{
		from: from, to: from + length, seq: seq &^ (erased | tombstone),
		time:   int64(binary.LittleEndian.Uint64(buf[12:])),
		buried: seq&tombstone != 0, gone: seq&erased != 0,
	}
}

// isHeader tells a header of NATS by its two ends: its length is not part of the
// checksum.
func isHeader(h []byte) bool {
	return bytes.HasPrefix(h, []byte("NATS/1.0\r\n")) && bytes.HasSuffix(h, []byte("\r\n\r\n"))
}

func (s sealer) sum(head, subject, rest []byte) uint64 {
	s.hash.Reset()
	_, _ = s.hash.Write(head) // a hash takes everything
	_, _ = s.hash.Write(subject)
	_, _ = s.hash.Write(rest)
	return s.hash.Sum64()
}

// filler returns a record that says that the messages up to a sequence are gone,
// as JetStream itself writes for a message that it passes over.
func (s sealer) filler(seq uint64, at int64) []byte {
	buf := make([]byte, recordHead, recordHead+recordSum)
	binary.LittleEndian.PutUint32(buf, recordHead+recordSum)
	binary.LittleEndian.PutUint64(buf[4:], seq|erased)
	binary.LittleEndian.PutUint64(buf[12:], uint64(at))
	return binary.LittleEndian.AppendUint64(buf, s.sum(buf[4:20], nil, nil))
}

// walk calls whole with each record of a block and damaged with the bytes between
// them, in order. After damage it goes on where the next record begins, which its
// checksum tells.
func (s sealer) walk(block []byte, whole func(record), damaged func(from, to int)) {
	bad := -1
	for at := 0; at < len(block); {
		r, ok := s.read(block, at)
		if !ok {
			if bad < 0 {
				bad = at
			}
			at++
			continue
		}
		if bad >= 0 {
			damaged(bad, at)
			bad = -1
		}
		whole(r)
		at = r.to
	}
	if bad >= 0 {
		damaged(bad, len(block))
	}
}

// restore looks for the one bit that makes a record of damaged bytes and returns
// the bytes with that bit put right; nil when there is none or it is not found
// until the deadline. A checksum of 64 bits that fits is no accident.
func (s sealer) restore(damaged []byte, deadline time.Time) []byte {
	out := bytes.Clone(damaged)
	whole := func() bool {
		r, ok := s.read(out, 0)
		return ok && r.to == len(out)
	}
	for i := range out {
		if i%64 == 0 && time.Now().After(deadline) {
			return nil
		}
		for bit := range 8 {
			out[i] ^= 1 << bit
			if whole() {
				return out
			}
			out[i] ^= 1 << bit
		}
	}
	return nil
}

// guess returns what the first of damaged bytes say of themselves where that is
// not impossible: for a log from before there was a mark of its end.
func guess(damaged []byte) (r record, ok bool) {
	if len(damaged) < recordHead {
		return record{}, false
	}
	length := int(binary.LittleEndian.Uint32(damaged) &^ withHeader)
	if length < recordHead+recordSum || length > len(damaged) {
		return record{}, false
	}
	r = placed(damaged, 0, length)
	return r, bits.Len64(r.seq) < 62 && !r.buried && !r.gone
}
