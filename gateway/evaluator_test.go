package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// TestCheckpointOfAFullLog: a log that is full gets no frame until the rules'
// position gives frames free, and the position moves with the checkpoint: so that
// one is not waited for.
func TestCheckpointOfAFullLog(t *testing.T) {
	s := spoolIn(t, t.TempDir(), func(o *spool.Options) {
		o.Config = spool.Config{MaxBytes: 4 << 20}
		o.Followers = []string{followRules}
	})
	j := judgeOf(t, s)
	j.evaluator.every = time.Hour // never by itself
	padded := []telemetry.Reading{{Device: "d", Kind: "k", Site: "d", Time: time.Unix(1, 0), Values: []telemetry.Value{{Name: "n", Number: 1}, {Name: "word", Text: strings.Repeat("x", 16000)}}}}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	full := false
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		err := s.Readings().Append(ctx, padded)
		switch {
		case errors.Is(err, spool.ErrFull):
			if !full {
				full = true
				evaluating := make(chan error, 1)
				run, end := context.WithCancel(ctx)
				go func() { evaluating <- j.evaluator.Run(run) }()
				defer func() {
					end()
					if err := <-evaluating; err != nil {
						t.Error(err)
					}
				}()
			}
			<-time.After(20 * time.Millisecond)
		case err != nil:
			t.Fatal(err)
		case full:
			return // it has room again
		}
	}
	t.Errorf("full: %v; the log does not get room again, though all of it is evaluated", full)
}
