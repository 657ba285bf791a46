package link

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
)

// DefaultMaxLine bounds a line in bytes, without its end.
const DefaultMaxLine = 4096

// readBytes is the least size of a LineReader's buffer: what one read can
// bring at most.
const readBytes = 16 << 10

// A LineReader cuts a stream of bytes into lines that end with LF or CRLF, or
// with another byte. Its memory is one buffer, however long a line is.
type LineReader struct {
	// End is the byte that ends a line; NewLineReader sets LF. A CR before it does
	// not belong to the line.
	End byte
	// Whole drops a last line that lacks its end: where lines have no checksum, the
	// beginning of one may read as another number. Forget tells of it.
	Whole bool

	r       io.Reader
	buf     []byte
	used    int  // bytes of an unfinished line at the start of buf
	maxLine int  // bytes
	skip    bool // inside a line that was too long
}

// NewLineReader returns a reader of r's lines of at most maxLine bytes;
// maxLine 0 means DefaultMaxLine.
func NewLineReader(r io.Reader, maxLine int) *LineReader {
	if maxLine <= 0 {
		maxLine = DefaultMaxLine
	}
	return &LineReader{End: '\n', r: r, buf: make([]byte, max(readBytes, 2*maxLine)), maxLine: maxLine}
}

// Burst reads once, blocking until something arrives, and calls line for each
// line that is now complete and tooLong once for each line over the bound,
// with its first maxLine bytes. The bytes are valid during the call only. So
// the end of Burst is the moment when everything that has arrived was handled.
// At the end of the stream the last line may lack its end; the error is then
// io.EOF. A deadline that has passed is not the end: Burst can be called again
// and goes on within the line.
func (l *LineReader) Burst(line, tooLong func([]byte)) error {
	n, err := l.r.Read(l.buf[l.used:])
	end := l.used + n
	rest := l.buf[:end]
	for {
		i := bytes.IndexByte(rest, l.End)
		if i < 0 {
			break
		}
		l.deliver(rest[:i], line, tooLong)
		l.skip = false
		rest = rest[i+1:]
	}
	switch {
	case l.skip:
		rest = nil
	case len(rest) > l.maxLine+1: // one more for a CR
		tooLong(rest[:l.maxLine])
		l.skip, rest = true, nil
	}
	l.used = copy(l.buf, rest)
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if l.used > 0 && !l.Whole {
		l.deliver(l.buf[:l.used], line, tooLong)
		l.used = 0
	}
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	return err
}

// Forget drops what has arrived of a line that is not complete, and returns how
// many bytes it was.
func (l *LineReader) Forget() int {
	n := l.used
	l.used, l.skip = 0, false
	return n
}

func (l *LineReader) deliver(b []byte, line, tooLong func([]byte)) {
	if l.skip {
		return
	}
	if n := len(b); n > 0 && b[n-1] == '\r' {
		b = b[:n-1]
	}
	if len(b) > l.maxLine {
		tooLong(b[:l.maxLine])
		return
	}
	line(b)
}

// Unzip returns a reader of r's content, unpacked when it begins with the magic
// number of gzip (RFC 1952, 2.3.1: 1f 8b).
func Unzip(r io.Reader) (io.Reader, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	magic, err := b.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(magic) < 2 || magic[0] != 0x1f || magic[1] != 0x8b {
		return b, nil
	}
	z, err := gzip.NewReader(b)
	if err != nil {
		return nil, fmt.Errorf("unpack gzip: %w", err)
	}
	return z, nil
}
