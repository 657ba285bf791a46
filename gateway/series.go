package main

import (
	"context"
	"fmt"
	"time"

	"haidang/gateway/console"
)

// series asks the store for the past of a value, as a chart draws it.
func (g *instance) series(ctx context.Context, q console.SeriesQuery) ([]console.SeriesPoint, error) {
	// Names are those that the console has checked: of letters, digits and ._:-
	parts, err := g.store.Query(ctx, fmt.Sprintf(
		`SELECT mean("%[1]s"), min("%[1]s"), max("%[1]s") FROM "%[2]s" WHERE "device" = '%[3]s' AND time >= '%[4]s' AND time < '%[5]s' GROUP BY time(%[6]ds) fill(none)`,
		q.Value, q.Kind, q.Device, q.From.UTC().Format(time.RFC3339Nano), q.To.UTC().Format(time.RFC3339Nano), int(q.Every.Seconds())))
	if err != nil {
		return nil, err
	}
	var points []console.SeriesPoint
	for i := range parts {
		part := &parts[i]
		for row := range part.Values {
			mean, ok := part.Number(row, "mean")
			if !ok {
				continue
			}
			least, _ := part.Number(row, "min")
			most, _ := part.Number(row, "max")
			points = append(points, console.SeriesPoint{float64(part.Time(row).UnixMilli()) / 1000, mean, least, most})
		}
	}
	return points, nil
}
