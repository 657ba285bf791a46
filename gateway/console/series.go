package console

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"haidang/gateway/telemetry"
)

const (
	maxSeriesQueries = 4 // of the store at a time, for pages
	maxSeriesPoints  = 2000
	maxSeriesTime    = 400 * 24 * time.Hour
	seriesTime       = 15 * time.Second
)

// A SeriesQuery asks for a value's past: times in [From, To), one point for each
// Every in which there was a reading.
type SeriesQuery struct {
	Device, Kind, Value string
	From, To            time.Time
	Every               time.Duration
}

// A SeriesPoint is the time in seconds since 1970, and mean, least and most of
// the readings from then on.
type SeriesPoint [4]float64

// series serves GET /api/v1/devices/{id}/series.
func (c *Console) series(w http.ResponseWriter, r *http.Request) error {
	q, err := seriesQuery(r, time.Now())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), seriesTime)
	defer cancel()
	select {
	case c.desktop.series <- struct{}{}:
		defer func() { <-c.desktop.series }()
	case <-ctx.Done():
		return problemf(http.StatusServiceUnavailable, "", "the store is busy with other questions")
	}
	points, err := c.sources.Series(ctx, q)
	if err != nil {
		return problemf(http.StatusServiceUnavailable, "", "the history of %q could not be read: %v", q.Device, err)
	}
	if points == nil {
		points = []SeriesPoint{}
	}
	return writeJSON(w, http.StatusOK, map[string]any{
		"device": q.Device, "kind": q.Kind, "value": q.Value, "from": q.From, "to": q.To, "every_s": q.Every.Seconds(), "points": points,
	})
}

// seriesQuery reads the question: by default the last day in 600 points.
func seriesQuery(r *http.Request, now time.Time) (SeriesQuery, error) {
	get := r.URL.Query().Get
	q := SeriesQuery{Device: r.PathValue("id"), Kind: get("kind"), Value: get("value"), To: now.UTC()}
	for name, value := range map[string]string{"id": q.Device, "kind": q.Kind, "value": q.Value} {
		if !telemetry.ValidName(value) {
			return q, problemf(http.StatusBadRequest, name, "%s %q is not a name", name, value)
		}
	}
	for name, into := range map[string]*time.Time{"from": &q.From, "to": &q.To} {
		if s := get(name); s != "" {
			at, err := time.Parse(time.RFC3339, s)
			if err != nil {
				return q, problemf(http.StatusBadRequest, name, "%s %q is not a time like %s", name, s, now.UTC().Format(time.RFC3339))
			}
			*into = at.UTC()
		}
	}
	if q.From.IsZero() {
		q.From = q.To.Add(-24 * time.Hour)
	}
	points := 600
	if s := get("points"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 10 || n > maxSeriesPoints {
			return q, problemf(http.StatusBadRequest, "points", "points %q is not in 10..%d", s, maxSeriesPoints)
		}
		points = n
	}
	length := q.To.Sub(q.From)
	if length <= 0 || length > maxSeriesTime {
		return q, problemf(http.StatusBadRequest, "from", "from %s to %s is not a time of at most 400 days", q.From.Format(time.RFC3339), q.To.Format(time.RFC3339))
	}
	q.Every = max((length / time.Duration(points)).Round(time.Second), time.Second)
	return q, nil
}
