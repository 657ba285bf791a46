package console

import (
	"context"
	"errors"
	"net/http"
	"time"

	"haidang/gateway/telemetry"
)

// A LetterQuery is what is asked of the dead letters.
type LetterQuery struct {
	Device, Reason string // "": any
	All            bool   // those too that were retried or dropped
	Limit          int
}

// A LetterAct is what somebody does with a dead letter.
type LetterAct struct {
	ID    string
	Do    string // retry or drop
	By    string
	Again bool // retry although a retry of before may have come through
	At    time.Time
}

// ErrUnknownLetter is wrapped by errors about a dead letter that is not there.
var ErrUnknownLetter = errors.New("no such dead letter")

// ErrSettled is wrapped by errors about a dead letter that was retried or
// dropped already.
var ErrSettled = errors.New("nothing is to be done with this dead letter any more")

func (c *Console) letterRoutes() []route {
	var routes []route
	if c.sources.DeadLetters != nil {
		routes = append(routes, route{"/api/v1/deadletters", http.MethodGet, []string{"limit", "device", "reason", "state"}, c.deadLetters})
	}
	if c.sources.DeadLetter != nil {
		routes = append(routes, route{"/api/v1/deadletters/{id}", http.MethodGet, nil, c.deadLetter})
	}
	if c.sources.ActOnLetter != nil {
		for _, do := range []string{"retry", "drop"} {
			routes = append(routes, route{"/api/v1/deadletters/{id}/" + do, http.MethodPost, nil, c.actOnLetter(do)})
		}
	}
	return routes
}

// deadLetters serves GET /api/v1/deadletters.
func (c *Console) deadLetters(w http.ResponseWriter, r *http.Request) error {
	limit, err := limitOf(r, 100, maxDeadLetters)
	if err != nil {
		return err
	}
	query := r.URL.Query()
	state := query.Get("state")
	if state != "" && state != "all" {
		return problemf(http.StatusBadRequest, "state", "state %q is not all", state)
	}
	letters, err := c.sources.DeadLetters(r.Context(), LetterQuery{
		Device: query.Get("device"), Reason: query.Get("reason"), All: state == "all", Limit: limit,
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"deadletters": letters})
}

// deadLetter serves GET /api/v1/deadletters/{id}.
func (c *Console) deadLetter(w http.ResponseWriter, r *http.Request) error {
	letter, err := c.sources.DeadLetter(r.Context(), r.PathValue("id"))
	if err != nil {
		return letterProblem(err)
	}
	return writeJSON(w, http.StatusOK, letter)
}

// actOnLetter serves POST /api/v1/deadletters/{id}/retry and /drop.
func (c *Console) actOnLetter(do string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		body, err := jsonBody(w, r)
		if err != nil {
			return err
		}
		var in struct {
			By    string `json:"by"`
			Again bool   `json:"again"`
		}
		if err := decodeStrictly(body, &in); err != nil {
			return problemf(http.StatusBadRequest, fieldOf(err), "the body is not an object of by, again: %v", err)
		}
		act := LetterAct{ID: r.PathValue("id"), Do: do, Again: in.Again, At: time.Now().UTC()}
		if act.By, _, err = whoAndWhy(actor(r, in.By), do); err != nil {
			return err
		}
		letter, err := c.sources.ActOnLetter(r.Context(), act)
		if err != nil {
			return letterProblem(err)
		}
		return writeJSON(w, http.StatusOK, letter)
	}
}

func letterProblem(err error) error {
	status := http.StatusUnprocessableEntity
	var refused *telemetry.Rejection
	switch {
	case errors.Is(err, ErrUnknownLetter):
		status = http.StatusNotFound
	case errors.Is(err, ErrSettled):
		status = http.StatusConflict
	case errors.As(err, &refused):
	case errors.Is(err, ErrUnavailable), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		status = http.StatusServiceUnavailable
	}
	return problemf(status, "", "%v", err)
}
