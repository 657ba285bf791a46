package main

import (
	"errors"
	"slices"

	"haidang/gateway/telemetry"
)

// isOfWarning reports whether a record of the warnings log is a transition of a
// warning.
func isOfWarning(t *telemetry.Transition) bool { return t.Order == nil }

// isTold reports whether anybody is told of a transition.
func isTold(t *telemetry.Transition) bool { return isOfWarning(t) && !t.Quiet }

// isPublic reports whether every client of the broker may know of a transition:
// those of a drill would be taken for real ones.
func isPublic(t *telemetry.Transition) bool { return isTold(t) && !t.Exercise }

// isFor chooses the transitions that a recipient is told of, as far as the rule
// and the routes have not said so in To.
func isFor(recipient string) func(*telemetry.Transition) bool {
	return func(t *telemetry.Transition) bool {
		return isTold(t) && (len(t.Only) == 0 || slices.Contains(t.Only, recipient))
	}
}

// sift hands to accept those records that keep chooses. What accept refuses is
// named by its place in records.
func sift(records []telemetry.Transition, keep func(*telemetry.Transition) bool, accept func([]telemetry.Transition) error) error {
	var kept []telemetry.Transition
	var places []int
	for i := range records {
		if keep(&records[i]) {
			kept, places = append(kept, records[i]), append(places, i)
		}
	}
	if len(kept) == 0 {
		return nil
	}
	err := accept(kept)
	rejection, ok := errors.AsType[*telemetry.Rejection](err)
	if !ok || len(kept) == len(records) {
		return err
	}
	placed := &telemetry.Rejection{Records: slices.Clone(rejection.Records)}
	for i := range placed.Records {
		if at := placed.Records[i].Index; at >= 0 && at < len(places) {
			placed.Records[i].Index = places[at]
		}
	}
	return placed
}

// public returns the warnings that last and that everybody may know of.
func (g *instance) public() []telemetry.Warning { return public(g.centre.Warnings(false)) }

func public(lasting []telemetry.Warning) []telemetry.Warning {
	return slices.DeleteFunc(lasting, func(w telemetry.Warning) bool {
		return !isPublic(&telemetry.Transition{Warning: w})
	})
}
