package ais

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"time"

	"haidang/drivers/link"
)

// Decode reads lines from r, unpacking gzip, and writes one JSON object for
// each AIS message to w, with the field names of gpsd's class AIS as "gpsdecode
// -j -s" prints them (https://gpsd.io/gpsd_json.html). unscaled prints whole
// numbers in the units of ITU-R M.1371-5, as -u does; else degrees, knots and
// metres. The differences to gpsdecode 3.22, each in favour of the standard:
// the numbers of type 27 keep their digits and its status stays a code, gnss
// is not inverted, a turn to port is negative, vendorid has three characters,
// data of types 6 and 8 is never interpreted, and "device" is left out.
//
// The error is that of reading or writing; what cannot be decoded is counted.
func Decode(r io.Reader, unscaled bool, w io.Writer) (Counts, error) {
	p := newParser()
	plain, err := link.Unzip(r)
	if err != nil {
		return p.counts, fmt.Errorf("decode AIS: %w", err)
	}
	out := bufio.NewWriterSize(w, 64<<10)
	j := newJSONWriter(!unscaled)
	each := func(m *message) {
		if line := j.message(m); line != nil {
			_, _ = out.Write(line) // Flush returns its error
			return
		}
		p.reject(BadPayload)
	}
	line := func(b []byte) { p.feed(b, time.Time{}, each) }
	tooLong := func([]byte) {
		p.counts.Lines++
		p.reject(LineTooLong)
	}
	lines := link.NewLineReader(plain, link.DefaultMaxLine)
	for err == nil {
		err = lines.Burst(line, tooLong)
		if err == nil && out.Buffered() > 0 {
			err = out.Flush() // a live stream is shown as it comes
			if err != nil {
				return p.counts, fmt.Errorf("write AIS messages: %w", err)
			}
		}
	}
	p.end()
	if !errors.Is(err, io.EOF) {
		return p.counts, fmt.Errorf("decode AIS: %w", err)
	}
	if err := out.Flush(); err != nil {
		return p.counts, fmt.Errorf("write AIS messages: %w", err)
	}
	return p.counts, nil
}
