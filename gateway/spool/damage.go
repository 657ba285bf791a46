package spool

import (
	"fmt"
	"time"

	"haidang/gateway/telemetry"
)

// maxTold bounds the dead letters of one start.
const maxTold = 100

// streamOf and logOf are between the names of a log and of its stream.
func streamOf(log string) string {
	for _, l := range logNames() {
		if l.log == log {
			return l.stream
		}
	}
	return ""
}

func logOf(stream string) (log string, ok bool) {
	for _, l := range logNames() {
		if l.stream == stream {
			return l.log, true
		}
	}
	return "", false
}

type logName struct{ log, stream string }

func logNames() []logName {
	return []logName{{logReadings, streamReadings}, {logWarnings, streamWarnings}, {logLetters, streamLetters}}
}

// mend mends the files of the embedded log before the server opens them.
func (s *Spool) mend() error {
	m := &mender{dir: s.options.Dir, closed: s.ends.closed(), drops: s.options.Config.Full == DropOldest, deadline: time.Now().Add(restoreTime)}
	notes := map[string]end{}
	for _, l := range logNames() {
		notes[l.log] = s.ends.of(l.log)
	}
	err := m.all(notes)
	s.damage = append(s.damage, m.found...)
	if err != nil {
		return fmt.Errorf("open the log in %s: %w", s.options.Dir, err)
	}
	return nil
}

// tellDamage keeps a dead letter of each damage and says so. The clock of log time
// may not run yet, so they are received when the last frame was.
func (s *Spool) tellDamage() {
	found := s.damage
	s.damage = nil
	at := time.Unix(0, max(s.readings.core.lastReceived.Load(), s.letters.core.lastReceived.Load())).UTC()
	var letters []telemetry.DeadLetter
	for i := range found {
		d := &found[i]
		log, isLog := logOf(d.stream)
		if !isLog {
			log = partOf(d.stream)
		}
		if d.stream == streamReadings && d.first > 0 {
			d.first = max(d.first, s.positions.slowest()+1) // before it nobody misses anything
		}
		letter := telemetry.DeadLetter{At: at, Source: "spool", Reason: "damaged", Place: log, Detail: d.detail()}
		if d.last > 0 && d.first <= d.last {
			letter.Place = fmt.Sprintf("%s %d-%d", log, d.first, d.last)
			s.metrics.lost.WithLabelValues(log).Add(float64(d.last - d.first + 1))
		}
		s.metrics.deadLetter(log, "spool", letter.Reason)
		if d.restored > 0 {
			s.logger.Warn("the log was damaged and is mended", "place", letter.Place, "detail", letter.Detail)
		} else {
			s.logger.Error("the log was damaged", "place", letter.Place, "detail", letter.Detail)
		}
		letters = append(letters, letter)
	}
	if len(letters) == 0 {
		return
	}
	s.letters.AppendAt(at, letters[:min(len(letters), maxTold)], func(err error) {
		if err != nil {
			s.logger.Error("a dead letter cannot be kept", "place", letters[0].Place, "error", err)
		}
	})
}

// partOf names what is not a log.
func partOf(stream string) string {
	switch stream {
	case "KV_" + bucketKV:
		return "positions"
	case "OBJ_" + bucketObjects:
		return "checkpoints"
	case "":
		return "all logs"
	}
	return stream
}

// detail is the sentence for people.
func (d *damage) detail() string {
	if d.stream == "" {
		return fmt.Sprintf("the folder %s of the logs is gone, and all that was in it; they begin anew", d.what)
	}
	text := fmt.Sprintf("%s of %s was damaged: ", d.what, d.stream)
	switch {
	case d.restored > 0:
		text += "one wrong bit was put right"
	case d.what == metaFile:
		text += "it is made again, its messages are there"
	case d.first > d.last:
		text += "frames of it are lost that all followers had read"
	case d.last == 0:
		text += fmt.Sprintf("%d bytes of it cannot be read and are taken out", d.bytes)
	default:
		text += fmt.Sprintf("%d frames received %s are lost, but for what was read before", d.last-d.first+1, d.when())
	}
	if d.aside != "" {
		text += "; as it was: " + d.aside
	}
	return text
}

func (d *damage) when() string {
	stamp := func(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339) }
	switch {
	case d.after > 0 && d.before > 0:
		return "from " + stamp(d.after) + " to " + stamp(d.before)
	case d.before > 0:
		return "up to " + stamp(d.before)
	case d.after > 0:
		return "after " + stamp(d.after)
	}
	return "at an unknown time"
}
