package influx

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/influxdata/influxql"
)

const (
	// maxPortQueries is how many queries of the port run at a time; others wait.
	maxPortQueries = 4
	// maxStatementBytes bounds the text of a query. The parser recurses once for
	// each parenthesis.
	maxStatementBytes = 64 << 10
	// maxFormBytes bounds the body of a query by POST.
	maxFormBytes = 256 << 10
	// answerPatience is how long a client may take for each part of an answer, and half
	// of what it may take for a request. One that stops reading would keep its place
	// for ever, and the engine from being closed and opened again.
	answerPatience = 30 * time.Second
	// closeGrace is how long answers under way may take when the port closes.
	closeGrace = 3 * time.Second
)

// serve answers on the listener until ctx is done.
func (s *Store) serve(ctx context.Context) error {
	if s.listener == nil {
		<-ctx.Done()
		return nil
	}
	server := &http.Server{
		Handler:           s.guarded(s.face()),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       2 * s.patience, // who sends a body slowly would keep a writer's place
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxFormBytes,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(s.front()) }()
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		grace, cancel := context.WithTimeout(context.Background(), closeGrace)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
		err = <-ended
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve InfluxDB's API on %s: %w", s.listener.Addr(), err)
	}
	return nil
}

// face is what the port answers: a short list in front of the engine.
func (s *Store) face() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/query", s.serveQuery)
	mux.HandleFunc("/ping", s.serveAlive)
	mux.HandleFunc("/health", s.serveAlive)
	mux.HandleFunc("/write", func(w http.ResponseWriter, r *http.Request) {
		s.serveIngest(w, r, r.URL.Query().Get("db"))
	})
	mux.HandleFunc("/api/v2/write", func(w http.ResponseWriter, r *http.Request) {
		database, _ := databaseOf(r.URL.Query().Get("bucket"))
		s.serveIngest(w, r, database)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, "there is no %s here: /query, /write, /api/v2/write, /ping and /health are served", r.URL.Path)
	})
	return mux
}

// refuse answers with an error in InfluxDB's form.
func refuse(w http.ResponseWriter, status int, format string, args ...any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Influxdb-Version", engineVersion)
	w.WriteHeader(status)
	// The client may be gone; there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(map[string]string{"error": fmt.Sprintf(format, args...)})
}

// serveIngest hands a write to the ingest. There is one database, as in the
// engine; a write to any other is refused as the engine refuses it, in its
// words, before the body is read.
func (s *Store) serveIngest(w http.ResponseWriter, r *http.Request, database string) {
	switch {
	case s.ingest == nil:
		refuse(w, http.StatusForbidden, "this port only reads: publish readings over MQTT")
	case r.Method == http.MethodPost && database == "":
		refuseWrite(w, http.StatusBadRequest, "invalid", "database is required")
	case r.Method == http.MethodPost && database != Database:
		refuseWrite(w, http.StatusNotFound, "not found", fmt.Sprintf("database not found: %q", database))
	default:
		s.ingest.ServeHTTP(w, r)
	}
}

// refuseWrite answers in the shape that clients of 1.x (error) and of 2.x (code,
// message) read.
func refuseWrite(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Influxdb-Version", engineVersion)
	w.Header().Set("X-Influxdb-Error", message)
	w.WriteHeader(status)
	// The client may be gone; there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(map[string]string{"error": message, "code": code, "message": message})
}

// serveAlive answers /ping and /health as the engine does.
func (s *Store) serveAlive(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "%s %s is not served: use GET", r.Method, r.URL.Path)
		return
	}
	s.handOn(w, r, r.Method, r.URL.Path, r.URL.Query())
}

// handOn hands a request on to the engine with nothing of the original but
// what is named here: no Origin above all, because the engine allows every one,
// and a web page would read the store through the operator's browser.
func (s *Store) handOn(w http.ResponseWriter, r *http.Request, method, path string, values url.Values) {
	s.inflight.RLock()
	defer s.inflight.RUnlock()
	if err := s.usable(); err != nil {
		refuse(w, http.StatusServiceUnavailable, "%s", err)
		return
	}
	inner := &http.Request{
		Method:     method,
		URL:        &url.URL{Path: path, RawQuery: values.Encode()},
		Proto:      r.Proto,
		ProtoMajor: r.ProtoMajor,
		ProtoMinor: r.ProtoMinor,
		Header:     http.Header{},
		Body:       http.NoBody,
		Host:       r.Host,
		RemoteAddr: r.RemoteAddr,
	}
	for _, name := range []string{"Accept", "Accept-Encoding", "User-Agent"} {
		if v := r.Header.Get(name); v != "" {
			inner.Header.Set(name, v)
		}
	}
	s.toEngine(w, inner.WithContext(r.Context()))
}

// queryParameters are the parameters of /query that are handed on.
var queryParameters = [...]string{"db", "rp", "epoch", "time_format", "chunked", "chunk_size", "pretty", "params"}

func (s *Store) serveQuery(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		w.Header().Set("Allow", "GET, POST")
		refuse(w, http.StatusMethodNotAllowed, "%s /query is not served: use GET or POST", r.Method)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
	statements, err := queryText(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, "%s", err)
		return
	}
	query, err := parseQuery(statements, r.FormValue("params"))
	if err != nil {
		refuse(w, http.StatusBadRequest, "%s", err)
		return
	}
	for _, statement := range query.Statements {
		if err := readsOnly(statement); err != nil {
			s.metrics.statements.Inc()
			refuse(w, http.StatusForbidden, "%s", err)
			return
		}
	}
	values := url.Values{"q": {statements}}
	for _, name := range queryParameters {
		if v := r.FormValue(name); v != "" {
			values.Set(name, v)
		}
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-r.Context().Done():
		return
	}
	s.handOn(&paced{ResponseWriter: w, request: r.Context(), control: http.NewResponseController(w), patience: s.patience}, r, http.MethodGet, "/query", values)
}

// A paced answer gives the client its time for each part; a long one may take as
// long as it is read.
type paced struct {
	http.ResponseWriter
	request  context.Context // ends with the request, or when the client goes
	control  *http.ResponseController
	patience time.Duration
}

// Write writes a part of the answer.
func (p *paced) Write(part []byte) (int, error) {
	if err := p.control.SetWriteDeadline(time.Now().Add(p.patience)); err != nil {
		return 0, err
	}
	return p.ResponseWriter.Write(part)
}

// Flush sends what was written; an error shows in the next Write.
func (p *paced) Flush() {
	_ = p.control.SetWriteDeadline(time.Now().Add(p.patience))
	_ = p.control.Flush()
}

// CloseNotify tells the engine that the client has gone, so that it ends the query: it
// knows no other way.
func (p *paced) CloseNotify() <-chan bool {
	gone := make(chan bool, 1)
	context.AfterFunc(p.request, func() { gone <- true })
	return gone
}

// Unwrap lets http.ResponseController reach the connection.
func (p *paced) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// queryText returns the statements of a request, from where InfluxDB looks for
// them: the parameter q, or a file called q in a multipart form.
func queryText(r *http.Request) (string, error) {
	// Parses the body too; what it cannot parse shows as a missing q.
	text := strings.TrimSpace(r.FormValue("q"))
	if text == "" && r.MultipartForm != nil && len(r.MultipartForm.File["q"]) > 0 {
		file, err := r.MultipartForm.File["q"][0].Open()
		if err != nil {
			return "", fmt.Errorf("read the file q: %w", err)
		}
		defer file.Close()
		read, err := io.ReadAll(io.LimitReader(file, maxStatementBytes+1))
		if err != nil {
			return "", fmt.Errorf("read the file q: %w", err)
		}
		text = strings.TrimSpace(string(read))
	}
	if text == "" {
		return "", errors.New(`missing required parameter "q"`)
	}
	if len(text) > maxStatementBytes {
		return "", fmt.Errorf("the query is longer than %d bytes", maxStatementBytes)
	}
	return text, nil
}

// parseQuery parses statements with their bound parameters as the engine will.
func parseQuery(statements, params string) (*influxql.Query, error) {
	parser := influxql.NewParser(strings.NewReader(statements))
	if params != "" {
		bound, err := boundParameters(params)
		if err != nil {
			return nil, fmt.Errorf("error parsing query parameters: %w", err)
		}
		parser.SetParams(bound)
	}
	query, err := parser.ParseQuery()
	if err != nil {
		return nil, fmt.Errorf("error parsing query: %w", err)
	}
	return query, nil
}

func boundParameters(params string) (map[string]any, error) {
	decoder := json.NewDecoder(strings.NewReader(params))
	decoder.UseNumber()
	var bound map[string]any
	if err := decoder.Decode(&bound); err != nil {
		return nil, err
	}
	for name, value := range bound {
		number, ok := value.(json.Number)
		if !ok {
			continue
		}
		var err error
		if strings.Contains(string(number), ".") {
			bound[name], err = number.Float64()
		} else {
			bound[name], err = number.Int64()
		}
		if err != nil {
			return nil, err
		}
	}
	return bound, nil
}

// readsOnly returns nil for a statement that changes nothing. What is not known
// to be harmless is refused.
func readsOnly(statement influxql.Statement) error {
	switch st := statement.(type) {
	case *influxql.SelectStatement:
		if st.Target != nil {
			return errors.New("SELECT INTO is refused: this port only reads")
		}
		return nil
	case *influxql.ExplainStatement:
		return readsOnly(st.Statement)
	case *influxql.ShowStatsStatement, *influxql.ShowDiagnosticsStatement:
		return fmt.Errorf("%s is not served: see /metrics of the console", verb(statement))
	case *influxql.ShowContinuousQueriesStatement, *influxql.ShowDatabasesStatement,
		*influxql.ShowFieldKeyCardinalityStatement, *influxql.ShowFieldKeysStatement,
		*influxql.ShowGrantsForUserStatement, *influxql.ShowMeasurementCardinalityStatement,
		*influxql.ShowMeasurementsStatement, *influxql.ShowQueriesStatement,
		*influxql.ShowRetentionPoliciesStatement, *influxql.ShowSeriesCardinalityStatement,
		*influxql.ShowSeriesStatement, *influxql.ShowShardGroupsStatement,
		*influxql.ShowShardsStatement, *influxql.ShowSubscriptionsStatement,
		*influxql.ShowTagKeyCardinalityStatement, *influxql.ShowTagKeysStatement,
		*influxql.ShowTagValuesCardinalityStatement, *influxql.ShowTagValuesStatement,
		*influxql.ShowUsersStatement:
		return nil
	}
	return fmt.Errorf("%s is refused: this port only reads", verb(statement))
}

// verb is the words in capitals at the beginning of a statement.
func verb(statement influxql.Statement) string {
	var words []string
	for _, word := range strings.Fields(statement.String()) {
		if strings.ToUpper(word) != word || len(words) == 2 {
			break
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}
