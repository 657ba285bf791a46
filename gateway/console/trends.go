package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

const (
	maxTrends   = 24 // warnings, the gravest: as many as a wall shows
	trendLength = 3 * time.Hour
	trendPoints = 120
	freshLength = 10 * time.Minute // instead, where there is not more than that
	trendTime   = 20 * time.Second // how old what pages show may be
	trendsTime  = 10 * time.Second // for all of them
)

// A trend is the past of the value that a warning's rule compared: mean and time in
// seconds since 1970, and the threshold where there is one.
type trend struct {
	Points    [][2]float64 `json:"points"`
	Threshold *float64     `json:"threshold,omitempty"`
}

// trends serves GET /api/v1/trends: the last three hours of what the gravest
// warnings are about, by warning. It is asked once for all pages that are open.
func (c *Console) trends(w http.ResponseWriter, r *http.Request) error {
	done, err := c.desktop.trends.get(0, trendTime, func() (rendering, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), trendsTime)
		defer cancel()
		trends, err := c.readTrends(ctx, time.Now())
		if err != nil {
			return rendering{}, err
		}
		body, err := json.Marshal(map[string]any{"trends": trends})
		if err != nil {
			return rendering{}, fmt.Errorf("encode the trends: %w", err)
		}
		return newRendering(body, time.Now(), 0)
	})
	if err != nil {
		return problemf(http.StatusServiceUnavailable, "", "the trends could not be read: %v", err)
	}
	writePacked(w, r, http.StatusOK, "application/json", done.body, done.gzip)
	return nil
}

func (c *Console) readTrends(ctx context.Context, now time.Time) (map[string]trend, error) {
	known, err := c.known()
	if err != nil {
		return nil, err
	}
	warnings := c.sources.Warnings(false)
	out := map[string]trend{}
	for i := range warnings[:min(len(warnings), maxTrends)] {
		w := &warnings[i]
		figures := known.Figures("en", w)
		if len(figures) == 0 || figures[0].Kind == "" {
			continue
		}
		q := SeriesQuery{Device: w.Device, Kind: figures[0].Kind, Value: figures[0].Name, To: now}
		points, err := c.readTrend(ctx, q, trendLength)
		if err == nil && len(points) < 5 {
			points, err = c.readTrend(ctx, q, freshLength)
		}
		if err != nil {
			return nil, fmt.Errorf("trend of %s: %w", w.ID, err)
		}
		t := trend{Points: make([][2]float64, 0, len(points)), Threshold: w.Threshold}
		for _, p := range points {
			t.Points = append(t.Points, [2]float64{p[0], p[1]})
		}
		out[w.ID] = t
	}
	return out, nil
}

// readTrend asks the store when it has room for a question.
func (c *Console) readTrend(ctx context.Context, q SeriesQuery, length time.Duration) ([]SeriesPoint, error) {
	select {
	case c.desktop.series <- struct{}{}:
		defer func() { <-c.desktop.series }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	q.From, q.Every = q.To.Add(-length), length/trendPoints
	return c.sources.Series(ctx, q)
}
