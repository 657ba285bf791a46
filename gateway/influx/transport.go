package influx

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// insideURL is the address that the client gives to inside; no socket sees it.
const insideURL = "http://influx.inside"

// inside is an http.RoundTripper that calls a handler of this process. A write
// is handled before RoundTrip returns; the answer to a query is read while the
// handler writes it, and closing the body ends the handler.
type inside struct{ handler http.HandlerFunc }

func (t inside) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	defer r.Body.Close()
	r.RemoteAddr = "127.0.0.1:0"
	if strings.HasSuffix(r.URL.Path, "/query") {
		return t.stream(r)
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w := &recorder{header: http.Header{}}
	t.handler.ServeHTTP(w, r)
	return w.response(r, io.NopCloser(&w.body)), nil
}

func (t inside) stream(r *http.Request) (*http.Response, error) {
	read, write := io.Pipe()
	w := &streamer{
		recorder: recorder{header: http.Header{}},
		pipe:     write,
		started:  make(chan struct{}),
		gone:     make(chan bool, 1),
		done:     make(chan struct{}),
	}
	leave := func() {
		select {
		case w.gone <- true:
		default:
		}
		read.CloseWithError(fmt.Errorf("the reader has left"))
	}
	go func() {
		defer close(w.done)
		defer write.Close()
		t.handler.ServeHTTP(w, r)
		w.begin()
	}()
	select {
	case <-w.started:
	case <-r.Context().Done():
		leave()
		<-w.done
		return nil, r.Context().Err()
	}
	return w.response(r, &streamBody{PipeReader: read, leave: leave, done: w.done}), nil
}

// recorder keeps the answer of a handler.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *recorder) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

func (w *recorder) response(r *http.Request, body io.ReadCloser) *http.Response {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return &http.Response{
		Status:        fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)),
		StatusCode:    w.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        w.header,
		Body:          body,
		ContentLength: -1,
		Request:       r,
	}
}

// streamer passes the answer of a handler through a pipe. It is a Flusher and a
// CloseNotifier because the engine asks its writer for both.
type streamer struct {
	recorder
	once    sync.Once
	pipe    *io.PipeWriter
	started chan struct{}
	gone    chan bool
	done    chan struct{}
}

func (w *streamer) begin() { w.once.Do(func() { close(w.started) }) }

func (w *streamer) WriteHeader(status int) {
	w.recorder.WriteHeader(status)
	w.begin()
}

func (w *streamer) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.pipe.Write(p)
}

func (w *streamer) Flush() {}

func (w *streamer) CloseNotify() <-chan bool { return w.gone }

// streamBody ends the handler when it is closed and waits for it.
type streamBody struct {
	*io.PipeReader
	leave func()
	done  chan struct{}
}

func (b *streamBody) Close() error {
	b.leave()
	<-b.done
	return nil
}
