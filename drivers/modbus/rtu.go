package modbus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"haidang/drivers/link"
)

// Times of RTU frames.
const (
	// minSilence is 3.5 characters above 19200 baud (MODBUS over serial line
	// V1.02, 2.5.1.1).
	minSilence = 1750 * time.Microsecond
	tcpSilence = 5 * time.Millisecond // where the serial line is somebody else's

	// settle is a silence after which nothing more of a frame comes. USB adapters
	// deliver every 16 ms, networks in packets.
	serialSettle = 50 * time.Millisecond
	tcpSettle    = 200 * time.Millisecond

	maxNoise   = time.Second // a line that does not fall silent for longer is no line
	maxWatched = 64 << 10    // bytes that nobody asked for, between two requests
	rtuBuffer  = 4 * maxRTUBytes
)

// rtu carries requests as RTU frames, one at a time.
type rtu struct {
	address string // for messages
	timeout time.Duration
	char    time.Duration // one character on our own serial line; 0: it is somebody else's
	silence time.Duration // before a request
	settle  time.Duration
	echo    bool // the adapter gives back what it sends
	watched bool // the end of an unused connection is news
	redial  bool // a connection that proves closed is made anew once for a read
	beats   [][]byte
	dial    dialer
	stale   func() // an answer to another request was discarded
	noise   func(int)
	opened  func()

	conn   link.Stream
	buffer []byte
	watch  *watch
}

func newRTU(e endpoint, cfg *Config, m *metrics) *rtu {
	r := &rtu{
		address: e.target.Address, timeout: cfg.Timeout.Std(), echo: cfg.Echo, dial: e.dialer(),
		silence: tcpSilence, settle: tcpSettle, redial: true,
		stale: m.stale.Inc, opened: m.connections.Inc, noise: func(n int) { m.noise.Add(float64(n)) },
		buffer: make([]byte, rtuBuffer),
	}
	if e.serial() {
		r.char = e.target.Serial.CharTime()
		r.silence = max(r.char*7/2, minSilence)
		r.settle = max(serialSettle, 4*r.char)
		r.watched, r.redial = true, false
	}
	r.silence = max(r.silence, cfg.Pause.Std())
	return r
}

// Open connects where there is no connection.
func (r *rtu) Open(ctx context.Context) error {
	if r.conn != nil {
		return nil
	}
	conn, err := r.dial(ctx)
	if err != nil {
		var already *connectError
		if errors.As(err, &already) {
			return err
		}
		return &connectError{cause: err} // link names the place
	}
	r.opened()
	r.conn = conn
	return nil
}

// Exchange sends a request and returns its answer.
func (r *rtu) Exchange(ctx context.Context, request []byte) ([]byte, error) {
	r.unwatch()
	used := r.conn != nil
	answer, err := r.attempt(ctx, request)
	if r.redial && used && err != nil && ctx.Err() == nil && reads(request[1]) && reasonOf(err) == reasonClosed {
		answer, err = r.attempt(ctx, request)
	}
	return answer, err
}

func (r *rtu) attempt(ctx context.Context, request []byte) ([]byte, error) {
	if err := r.Open(ctx); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func(conn link.Stream) func() { return func() { conn.Close() } }(r.conn))
	defer stop()
	err := r.clear(r.silence, r.noise)
	if err == nil {
		err = r.send(request)
	}
	var answer []byte
	if err == nil {
		answer, err = r.receive(request)
	}
	if ctx.Err() != nil {
		r.Close()
		return nil, ctx.Err()
	}
	exception := err == nil && answer[1]&0x80 != 0
	if exception || errors.Is(err, errBadAnswer) || errors.Is(err, os.ErrDeadlineExceeded) {
		// An exception does not tell what it refuses, and the rest of a bad
		// answer may still come: what follows at once belongs to them.
		if quiet := r.clear(r.settle, func(int) { r.stale() }); quiet != nil {
			r.Close()
			if err == nil {
				err = quiet
			}
		}
		if err != nil {
			return nil, err
		}
		return answer, nil
	}
	if err != nil {
		r.Close()
		return nil, inWords(err)
	}
	return answer, nil
}

func (r *rtu) send(request []byte) error {
	if err := r.conn.SetWriteDeadline(time.Now().Add(r.timeout + r.wire(len(request)))); err != nil {
		return err
	}
	if n, err := r.conn.Write(request); err != nil {
		return &tornError{fmt.Errorf("%d of %d bytes sent: %w", n, len(request), notTimeout(err))}
	}
	return nil
}

// notTimeout keeps a line that takes no bytes from being told as a unit that
// does not answer.
func notTimeout(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("the line takes no more")
	}
	return err
}

// wire is how long so many characters take on our own serial line.
func (r *rtu) wire(characters int) time.Duration { return time.Duration(characters) * r.char }

// receive reads until the answer to the request is there. The time for it
// begins when the request is through, and it may begin to come at its last
// moment.
func (r *rtu) receive(request []byte) ([]byte, error) {
	length := rtuAnswerBytes(request)
	deadline := time.Now().Add(r.timeout + r.wire(len(request)+length))
	arrived := r.buffer[:0]
	echoed := !r.echo
	var own []byte // an answer that looks like the request itself
	for {
		if err := r.conn.SetReadDeadline(deadline); err != nil {
			return nil, err
		}
		n, err := r.conn.Read(arrived[len(arrived):cap(arrived)])
		arrived = arrived[:len(arrived)+n]
		if n == 0 && err != nil {
			return r.ended(request, arrived, own, echoed, err)
		}
		if !echoed {
			at := bytes.Index(arrived, request)
			if at < 0 {
				if len(arrived) == cap(arrived) {
					return nil, fmt.Errorf("%w: more than %d bytes", errBadAnswer, rtuBuffer)
				}
				continue
			}
			echoed = true
			arrived = arrived[:copy(arrived, arrived[at+len(request):])]
		}
		found := r.scan(arrived, request)
		for range found.stale {
			r.stale()
		}
		switch {
		case found.answer != nil && own != nil:
			return nil, fmt.Errorf("%w: the request came back before its answer; if the adapter echoes what it sends, set echo: true", errBadAnswer)
		case found.answer != nil && !r.echo && bytes.Equal(found.answer, request):
			// So is a write confirmed, and so does an echo look.
			own = bytes.Clone(found.answer)
			if !reads(request[1]) {
				deadline = earlier(deadline, time.Now().Add(r.settle))
			}
		case found.answer != nil:
			return bytes.Clone(found.answer), nil
		}
		if found.end > 0 {
			arrived = arrived[:copy(arrived, arrived[found.end:])]
		}
		if len(arrived) == cap(arrived) {
			return nil, fmt.Errorf("%w: more than %d bytes", errBadAnswer, rtuBuffer)
		}
		if len(arrived) >= length {
			deadline = earlier(deadline, time.Now().Add(r.settle)) // it is complete, and wrong
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// ended says what came of a request when no more bytes come.
func (r *rtu) ended(request, arrived, own []byte, echoed bool, err error) ([]byte, error) {
	switch {
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return nil, err
	case own != nil:
		return own, nil
	case !echoed && len(arrived) == 0:
		return nil, fmt.Errorf("%w: not even the echo of the request; does the adapter echo what it sends (echo: true)?", errBadAnswer)
	case len(arrived) > 0:
		return nil, whyNone(arrived, request)
	}
	return nil, &silenceError{r.timeout}
}

// maxBeats bounds where a heartbeat is looked for within an answer.
const maxBeats = 8

// scan looks for the answer, also where a modem has put a heartbeat into it.
func (r *rtu) scan(arrived, request []byte) find {
	found := scanRTU(arrived, request)
	if found.answer != nil {
		return found
	}
	for _, beat := range r.beats {
		if len(arrived) < rtuAnswerBytes(request)+len(beat) {
			continue
		}
		at := 0
		for range maxBeats {
			next := bytes.Index(arrived[at:], beat)
			if next < 0 {
				break
			}
			at += next
			without := append(bytes.Clone(arrived[:at]), arrived[at+len(beat):]...)
			if f := scanRTU(without, request); f.answer != nil {
				return find{answer: f.answer, end: len(arrived), stale: f.stale}
			}
			at++
		}
	}
	return found
}

// clear reads and discards until the line has been silent for the given time.
// tell is called with the number of bytes, if there were any.
func (r *rtu) clear(silence time.Duration, tell func(bytes int)) error {
	most := time.Now().Add(maxNoise + silence)
	discarded := 0
	defer func() {
		if discarded > 0 {
			tell(discarded)
		}
	}()
	for {
		if err := r.conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
			return err
		}
		n, err := r.conn.Read(r.buffer)
		discarded += n
		switch {
		case n == 0 && errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case n == 0 && err != nil:
			return err
		case time.Now().After(most):
			return &tornError{fmt.Errorf("%w: the line does not fall silent", errBadAnswer)}
		}
	}
}

// A watch reads a connection that nobody uses.
type watch struct {
	news  chan error
	ended chan struct{}
}

// Watch reads and discards, as heartbeats of modems are, and tells when the
// connection ends.
func (r *rtu) Watch() <-chan error {
	if !r.watched || r.conn == nil {
		return nil
	}
	if r.watch != nil {
		return r.watch.news
	}
	conn := r.conn
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return nil // the next request will find out
	}
	w := &watch{news: make(chan error, 1), ended: make(chan struct{})}
	r.watch = w
	go func() {
		defer close(w.ended)
		for seen := 0; ; {
			n, err := conn.Read(r.buffer)
			if seen += n; n > 0 {
				r.noise(n)
			}
			switch {
			case n > 0 && seen > maxWatched:
				w.news <- fmt.Errorf("%w: %d bytes that nobody asked for", errBadAnswer, seen)
				return
			case n > 0 || err == nil:
			case errors.Is(err, os.ErrDeadlineExceeded):
				return
			default:
				w.news <- inWords(err)
				return
			}
		}
	}()
	return w.news
}

// unwatch ends a watch and waits for its end.
func (r *rtu) unwatch() {
	if r.watch == nil {
		return
	}
	if err := r.conn.SetReadDeadline(time.Unix(1, 0)); err != nil {
		r.conn.Close() // a read must not be left in it
	}
	<-r.watch.ended
	r.watch = nil
}

// Close ends the connection.
func (r *rtu) Close() {
	if r.conn == nil {
		return
	}
	r.conn.Close()
	if r.watch != nil {
		<-r.watch.ended
		r.watch = nil
	}
	r.conn = nil
}
