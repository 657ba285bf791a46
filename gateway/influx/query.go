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
)

// chunkRows is how many rows of a series one chunk of an answer holds.
const chunkRows = 5000

// maxQueryRows bounds what Query keeps in memory; Each has no such bound.
const maxQueryRows = 1_000_000

// A Series is rows of one measurement, and of one combination of tags when the
// query groups by tags.
type Series struct {
	Name    string            `json:"name"`
	Tags    map[string]string `json:"tags"`
	Columns []string          `json:"columns"`
	// Values has one cell for each column: nil, string, bool or json.Number.
	// Times are nanoseconds since 1970; use Time.
	Values [][]any `json:"values"`
	// Partial says that the next part continues this series.
	Partial bool `json:"partial"`
}

// Column returns the place of a column, or -1.
func (s *Series) Column(name string) int {
	for i, c := range s.Columns {
		if c == name {
			return i
		}
	}
	return -1
}

// Time returns the time of a row, the zero time when it has none.
func (s *Series) Time(row int) time.Time {
	if n, ok := s.cell(row, "time").(json.Number); ok {
		if ns, err := n.Int64(); err == nil {
			return time.Unix(0, ns)
		}
	}
	return time.Time{}
}

// Number returns the number in a column and whether there is one.
func (s *Series) Number(row int, column string) (float64, bool) {
	n, ok := s.cell(row, column).(json.Number)
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return f, err == nil
}

// Text returns the word in a column, "" when there is none.
func (s *Series) Text(row int, column string) string {
	text, _ := s.cell(row, column).(string)
	return text
}

func (s *Series) cell(row int, column string) any {
	i := s.Column(column)
	if i < 0 || row < 0 || row >= len(s.Values) || i >= len(s.Values[row]) {
		return nil
	}
	return s.Values[row][i]
}

// answer is what /query sends, once or once for each chunk.
type answer struct {
	Results []struct {
		Series []Series `json:"series"`
		Error  string   `json:"error"`
	} `json:"results"`
	Error string `json:"error"`
}

// Query returns the series that an InfluxQL query selects, of all its
// statements one after the other. More than a million rows are an error: use
// Each.
func (s *Store) Query(ctx context.Context, influxql string) ([]Series, error) {
	var out []Series
	rows := 0
	err := s.Each(ctx, influxql, func(part *Series) error {
		rows += len(part.Values)
		if rows > maxQueryRows {
			return fmt.Errorf("more than %d rows", maxQueryRows)
		}
		if n := len(out); n > 0 && out[n-1].Partial {
			out[n-1].Values = append(out[n-1].Values, part.Values...)
			out[n-1].Partial = part.Partial
			return nil
		}
		out = append(out, *part)
		return nil
	})
	return out, err
}

// Each calls part for every part of the answer to an InfluxQL query as it
// arrives; a long series comes in several parts. An error of part ends the query
// and is returned. part must not call the store.
func (s *Store) Each(ctx context.Context, influxql string, part func(*Series) error) error {
	s.inflight.RLock()
	defer s.inflight.RUnlock()
	if err := s.usable(); err != nil {
		return err
	}
	if err := s.each(ctx, http.MethodGet, influxql, part); err != nil {
		return fmt.Errorf("query InfluxDB at %s: %q: %w", s.address, shorten(influxql), err)
	}
	return nil
}

func (s *Store) each(ctx context.Context, method, influxql string, part func(*Series) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	response, err := s.ask(ctx, method, influxql)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return answerError(response)
	}
	decoder := json.NewDecoder(response.Body)
	decoder.UseNumber()
	for {
		var a answer
		if err := decoder.Decode(&a); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		if a.Error != "" {
			return errors.New(a.Error)
		}
		for i := range a.Results {
			if a.Results[i].Error != "" {
				return errors.New(a.Results[i].Error)
			}
			for j := range a.Results[i].Series {
				if err := part(&a.Results[i].Series[j]); err != nil {
					return err
				}
			}
		}
	}
}

// ask sends the query. POST is for statements that change something.
func (s *Store) ask(ctx context.Context, method, influxql string) (*http.Response, error) {
	database, policy := databaseOf(s.cfg.Bucket)
	values := url.Values{"db": {database}, "q": {influxql}, "epoch": {"ns"}, "chunked": {"true"}}
	values.Set("chunk_size", fmt.Sprint(chunkRows))
	if policy != "" {
		values.Set("rp", policy)
	}
	request, err := http.NewRequestWithContext(ctx, method, s.base+"/query?"+values.Encode(), nil)
	if err != nil {
		return nil, err
	}
	if s.cfg.Token != "" {
		request.Header.Set("Authorization", "Token "+s.cfg.Token)
	}
	request.Header.Set("Accept", "application/json")
	return s.reader.Do(request)
}

// answerError makes an error of an answer that is not 200.
func answerError(response *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	var a struct{ Error, Message string }
	if json.Unmarshal(body, &a) == nil && a.Error+a.Message != "" {
		return fmt.Errorf("%s: %s", response.Status, strings.TrimSpace(a.Error+" "+a.Message))
	}
	return fmt.Errorf("%s: %s", response.Status, shorten(string(body)))
}

// shorten bounds a text for a message.
func shorten(text string) string {
	text = strings.TrimSpace(text)
	if len(text) > 200 {
		return strings.ToValidUTF8(text[:200], "") + "..."
	}
	return text
}
