// Package replay reads recorded files as readings in the order of the file:
// CSV by a map of columns, line protocol, and sentences through a decoder that
// the caller gives. It paces them by their own time and counts what became of
// each record.
//
// A reading keeps its own time. What has none gets one from Start and Rate: the
// n-th record of a file is at Start + n/Rate. So the same file gives the same
// readings on every run.
package replay

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// MaxLine bounds a line of a file.
const MaxLine = 1 << 20

// A Sink takes the readings of one record of a file and what could not be one.
type Sink interface {
	// Take takes the readings of one record; the error ends the replay.
	Take(readings []telemetry.Reading) error
	// Reject takes a record that could not be read.
	Reject(letter telemetry.DeadLetter) error
}

// A Decoder makes readings of the lines of a file.
type Decoder interface {
	// Line decodes one line without its end. at is the time of a record that
	// has none. A line that is no record, such as a comment, gives nothing.
	Line(line []byte, at time.Time, sink Sink) error
	// End is called after the last line.
	End(sink Sink) error
}

// Timing gives a time to records that have none.
type Timing struct {
	Start time.Time
	Rate  float64 // records per second; above 0
}

// At returns the time of the n-th record, from 0.
func (t Timing) At(n int) time.Time {
	return t.Start.Add(time.Duration(float64(n) / t.Rate * float64(time.Second)))
}

// A File is an open recording. Read counts the bytes as they lie on disk, for a
// progress bar.
type File struct {
	Name string
	Size int64 // bytes on disk

	disk *os.File
	read int64
	raw  *bufio.Reader // of disk
	text io.Reader
	seen int // lines
}

// Open opens a recording; gzip is recognised by its first bytes.
func Open(name string) (*File, error) {
	disk, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	f := &File{Name: name, disk: disk}
	stat, err := disk.Stat()
	if err == nil && stat.IsDir() {
		err = fmt.Errorf("%s is a folder; want a file", name)
	}
	if err != nil {
		return nil, errors.Join(err, disk.Close())
	}
	f.Size = stat.Size()
	buffered := bufio.NewReaderSize(counting{f}, 64<<10)
	f.raw, f.text = buffered, buffered
	if magic, _ := buffered.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		unpacked, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", name, err), disk.Close())
		}
		f.text = bufio.NewReaderSize(unpacked, 64<<10)
	}
	return f, nil
}

type counting struct{ f *File }

func (c counting) Read(p []byte) (int, error) {
	n, err := c.f.disk.Read(p)
	c.f.read += int64(n)
	return n, err
}

// Done returns how many bytes of the file on disk were used.
func (f *File) Done() int64 { return f.read - int64(f.raw.Buffered()) }

// Seen returns how many lines were read.
func (f *File) Seen() int { return f.seen }

// Close closes the file.
func (f *File) Close() error { return f.disk.Close() }

// Head returns up to n first bytes without taking them.
func (f *File) Head(n int) []byte {
	head, _ := f.text.(*bufio.Reader).Peek(n) // a shorter file gives what it has
	return head
}

// Lines hands each line of the file to the decoder. A line over MaxLine is
// rejected and the next one is read.
func (f *File) Lines(ctx context.Context, d Decoder, timing Timing, sink Sink) error {
	reader := f.text.(*bufio.Reader)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		line, tooLong, err := readLine(reader)
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return d.End(sink)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read %s after line %d: %w", f.Name, n, err)
		}
		f.seen++
		place := fmt.Sprintf("%s:%d", f.Name, n+1)
		if tooLong {
			err = sink.Reject(telemetry.DeadLetter{Place: place, Reason: "line_too_long", Detail: fmt.Sprintf("a line is at most %d bytes", MaxLine), Bytes: line})
		} else {
			err = d.Line(line, timing.At(n), placed{sink, place})
		}
		if err != nil {
			return err
		}
	}
}

// readLine reads a line without its end; of one over MaxLine only the first
// bytes.
func readLine(r *bufio.Reader) (line []byte, tooLong bool, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if len(line) < MaxLine {
			line = append(line, part...)
		} else {
			tooLong = true
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if len(line) > MaxLine {
			line, tooLong = line[:MaxLine], true
		}
		trimmed := strings.TrimRight(string(line), "\r\n")
		if err == nil || len(line) > 0 {
			return []byte(trimmed), tooLong, nil
		}
		return nil, false, err
	}
}

// placed adds file and line to what is rejected.
type placed struct {
	Sink
	place string
}

// Reject implements Sink.
func (p placed) Reject(letter telemetry.DeadLetter) error {
	if letter.Place == "" {
		letter.Place = p.place
	}
	return p.Sink.Reject(letter)
}
