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

// TestTableOnTerminal: where the terminal is too narrow the sentences stand
// below, whole, and no line is longer than the terminal.
func TestTableOnTerminal(t *testing.T) {
	table := columns{}
	table.add("DEVICE", "NAME", "PROBLEMS")
	table.add("kim-long", "Trạm Kim Long", "silent for 24s; link down: the other side closed the connection")
	table.add("phu-oc", "Trạm Phú Ốc", "")
	for _, test := range []struct {
		width int
		want  string
	}{
		{0, "DEVICE    NAME           PROBLEMS\nkim-long  Trạm Kim Long  silent for 24s; link down: the other side closed the connection\nphu-oc    Trạm Phú Ốc\n"},
		{90, "DEVICE    NAME           PROBLEMS\nkim-long  Trạm Kim Long  silent for 24s; link down: the other side closed the connection\nphu-oc    Trạm Phú Ốc\n"},
		{40, "DEVICE    NAME\nkim-long  Trạm Kim Long\n    silent for 24s; link down: the other\n    side closed the connection\nphu-oc    Trạm Phú Ốc\n"},
	} {
		var out strings.Builder
		if err := table.writeWithin(&out, test.width); err != nil {
			t.Fatal(err)
		}
		if out.String() != test.want {
			t.Errorf("%d cells: got\n%s\nwant\n%s", test.width, &out, test.want)
		}
	}
}

func TestFirstLines(t *testing.T) {
	for _, test := range []struct {
		text string
		most int
		want string
	}{
		{"a\nb\nc\n", 3, "a\nb\nc\n"},
		{"a\nb\nc\nd\n", 3, "a\n… 2 lines more\nd\n"},
		{"a\nb\nc\nd\ne\n", 4, "a\nb\n… 2 lines more\ne\n"},
		{"a\nb\nc\nd\n", 0, "a\nb\nc\nd\n"},
	} {
		if got := firstLines(test.text, test.most); got != test.want {
			t.Errorf("%q in %d lines: %q, want %q", test.text, test.most, got, test.want)
		}
	}
}
