package main

import (
	"strings"
	"testing"
)

// TestColumns: Vietnamese in both its spellings, and wide letters, stand below
// each other.
func TestColumns(t *testing.T) {
	table := columns{}
	table.add("NAME", "X")
	table.add("Trạm Kim Long", "1")             // composed
	table.add("Tra\u0323m Kim Long", "2")       // with a combining dot below
	table.add("順化", "3", "")                    // two cells each
	table.add("e\u0302\u0301 \u200b", "4", "y") // a zero-width space takes none
	var out strings.Builder
	if err := table.write(&out); err != nil {
		t.Fatal(err)
	}
	want := "NAME           X\nTrạm Kim Long  1\nTra\u0323m Kim Long  2\n順化           3\ne\u0302\u0301 \u200b             4  y\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestClipped(t *testing.T) {
	for _, test := range []struct {
		text string
		most int
		want string
	}{
		{"Kim Long", 8, "Kim Long"},
		{"Trạm Kim Long", 8, "Trạm Ki…"},
		{"順化順化", 5, "順化…"},
		{"a\nb\x1b[31mred\u202e", 20, "a b?[31mred?"},
	} {
		if got := clipped(test.text, test.most); got != test.want {
			t.Errorf("%q in %d: %q, want %q", test.text, test.most, got, test.want)
		}
	}
}
