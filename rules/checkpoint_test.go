package rules

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestHash(t *testing.T) {
	doc := readDocument(t, propertyDocument)
	if Hash(doc) != Hash(readDocument(t, propertyDocument)) || len(Hash(doc)) != 64 {
		t.Error("the hash is not a function of the document")
	}
	text, err := canonical(doc)
	if err != nil {
		t.Fatal(err)
	}
	again, err := parseDocument(text)
	if err != nil || Hash(again) != Hash(doc) {
		t.Errorf("a document read back has another hash: %v", err)
	}
	doc.Rules[0].Name = "x"
	if Hash(again) == Hash(doc) {
		t.Error("two documents have one hash")
	}
}

func TestRestoreRefuses(t *testing.T) {
	log := randomLog(t, rand.New(rand.NewPCG(3, 3)), 300)
	_, checkpoint := replay(t, log, 1, nil)
	for name, broken := range map[string][]byte{
		"empty":     nil,
		"magic":     append([]byte("XXXX"), checkpoint[4:]...),
		"version":   append([]byte("HDRS\x63"), checkpoint[5:]...),
		"older":     append([]byte("HDRS\x01"), checkpoint[5:]...),
		"cut":       checkpoint[:len(checkpoint)-9],
		"one bit":   flip(checkpoint, len(checkpoint)/2),
		"checksum":  flip(checkpoint, len(checkpoint)-1),
		"too short": checkpoint[:6],
	} {
		engine := NewEngine(Options{})
		engine.Evaluate(epoch, control(t, readDocument(t, propertyDocument)))
		hash := engine.Hash()
		err := engine.Restore(broken)
		if err == nil {
			t.Errorf("%s: restored", name)
		} else if name == "older" && !strings.Contains(err.Error(), "it has version 1, this program reads versions 2 to 3: evaluate the log from its start") {
			t.Errorf("%s: %v", name, err)
		}
		if engine.Hash() != hash {
			t.Errorf("%s: the engine has changed", name)
		}
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 4
	return b
}
