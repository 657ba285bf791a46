package rules

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"haidang/gateway/telemetry"
)

// Bounds of a document in the log.
const (
	wordBytes        = telemetry.MaxTextBytes // one word of a part
	wordsPerPart     = 12                     // 192 KiB
	maxParts         = 512
	MaxDocumentBytes = 64 << 20 // of the canonical JSON
)

// ControlReadings returns the `_control` records that put the document into
// force when the engine reads the last of them in the log. They carry the
// document's canonical JSON, deflated and in base64, as the words d00, d01, ...
// of at most 16 KiB each, in parts of at most 192 KiB, and each part has the
// numbers part (from 1) and parts and the word hash, see Hash. They carry no
// time: the gateway stamps them. The records of one document belong together
// and in order.
func ControlReadings(gateway string, doc Document) ([]telemetry.Reading, error) {
	text, err := canonical(doc)
	if err != nil {
		return nil, err
	}
	s := &Set{hash: hashOf(text), size: len(text), pack: packing{text: text}}
	return s.ControlReadings(gateway)
}

// ControlReadings returns the records that put the set's document into force; see
// the function of the same name. What it packs is kept for checkpoints.
func (s *Set) ControlReadings(gateway string) ([]telemetry.Reading, error) {
	if s.size > MaxDocumentBytes {
		return nil, fmt.Errorf("rules document has %d bytes as JSON, at most %d are allowed", s.size, MaxDocumentBytes)
	}
	packed, err := s.pack.take()
	if err != nil {
		return nil, err
	}
	words := base64.StdEncoding.EncodeToString(packed)
	const perPart = wordBytes * wordsPerPart
	parts := (len(words) + perPart - 1) / perPart
	if parts > maxParts {
		return nil, fmt.Errorf("rules document needs %d control records, at most %d are allowed", parts, maxParts)
	}
	readings := make([]telemetry.Reading, 0, parts)
	for part := 1; part <= parts; part++ {
		piece := words[:min(len(words), perPart)]
		words = words[len(piece):]
		readings = append(readings, telemetry.Reading{
			Device: gateway, Kind: telemetry.KindControl, Site: gateway,
			Values: controlValues(s.hash, part, parts, piece),
		})
	}
	return readings, nil
}

func controlValues(hash string, part, parts int, piece string) []telemetry.Value {
	values := []telemetry.Value{
		{Name: "hash", Text: hash},
		{Name: "part", Number: float64(part)},
		{Name: "parts", Number: float64(parts)},
	}
	for i := 0; len(piece) > 0; i++ {
		word := piece[:min(len(piece), wordBytes)]
		piece = piece[len(word):]
		values = append(values, telemetry.Value{Name: wordName(i), Text: word})
	}
	return values
}

func wordName(i int) string { return fmt.Sprintf("d%02d", i) }

func deflate(text []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		return nil, fmt.Errorf("deflate rules document: %w", err)
	}
	if _, err := w.Write(text); err != nil {
		return nil, fmt.Errorf("deflate rules document: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("deflate rules document: %w", err)
	}
	return b.Bytes(), nil
}

func inflate(packed []byte) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), MaxDocumentBytes+1))
	if err != nil {
		return nil, fmt.Errorf("inflate rules document: %w", err)
	}
	if len(text) > MaxDocumentBytes {
		return nil, fmt.Errorf("inflate rules document: more than %d bytes", MaxDocumentBytes)
	}
	return text, nil
}

func parseDocument(text []byte) (Document, error) {
	var doc Document
	if err := json.Unmarshal(text, &doc); err != nil {
		return Document{}, fmt.Errorf("read rules document: %w", err)
	}
	return doc, nil
}

// An assembly gathers the parts of the document that is arriving.
type assembly struct {
	hash  string
	parts int
	words []string // base64, one per part received, in order
}

// add takes the next control record. It returns the document's JSON when r was
// its last part, and nil when there are parts to come.
func (a *assembly) add(r *telemetry.Reading) ([]byte, error) {
	part, _ := r.Number("part")
	parts, _ := r.Number("parts")
	hash := r.Text("hash")
	if part != float64(int(part)) || parts != float64(int(parts)) || part < 1 || part > parts || parts > maxParts || hash == "" {
		*a = assembly{}
		return nil, fmt.Errorf("control record with part %v of %v and hash %q: expected part 1..parts, at most %d, and a hash", part, parts, hash, maxParts)
	}
	if part == 1 {
		*a = assembly{hash: hash, parts: int(parts)}
	}
	if a.hash != hash || a.parts != int(parts) || len(a.words) != int(part)-1 {
		have := len(a.words)
		*a = assembly{}
		return nil, fmt.Errorf("control record with part %v of document %.12s: expected part %d", part, hash, have+1)
	}
	var piece strings.Builder
	for i := range wordsPerPart {
		piece.WriteString(r.Text(wordName(i)))
	}
	a.words = append(a.words, piece.String())
	if len(a.words) < a.parts {
		return nil, nil
	}
	packed, err := base64.StdEncoding.DecodeString(strings.Join(a.words, ""))
	*a = assembly{}
	if err != nil {
		return nil, fmt.Errorf("read document %.12s: %w", hash, err)
	}
	text, err := inflate(packed)
	if err != nil {
		return nil, fmt.Errorf("read document %.12s: %w", hash, err)
	}
	if got := hashOf(text); got != hash {
		return nil, fmt.Errorf("read document %.12s: its hash is %.12s", hash, got)
	}
	return text, nil
}
