package main

import (
	"slices"
	"strings"
	"testing"
)

// TestFlagsBeforeTheVerb: flags may be typed before the verb of a group.
func TestFlagsBeforeTheVerb(t *testing.T) {
	group := func(name string) verb {
		for _, v := range verbs() {
			if v.name == name {
				return v
			}
		}
		t.Fatalf("there is no verb %s", name)
		return verb{}
	}
	for _, c := range [][2]string{
		{"warnings --data X list", "list --data X"},
		{"warnings --data=X list --json", "list --data=X --json"},
		{"warnings --json list", "list --json"},
		{"warnings --data list", "--data list"},
		{"warnings --data list show ID", "show --data list ID"},
		{"warnings --device show list", "list --device show"},
		{"warnings --data X service list", "service --data X list"},
		{"warnings list --data X", "list --data X"},
		{"warnings --data X", "--data X"},
		{"warnings -- list", "-- list"},
		{"drill --why x end", "end --why x"},
		{"audit --by list", "--by list"},
		{"devices --config gateway.yaml list", "list --config gateway.yaml"},
	} {
		words := strings.Fields(c[0])
		if got := group(words[0]).verbFirst(words[1:]); !slices.Equal(got, strings.Fields(c[1])) {
			t.Errorf("%s: %q, want %q", c[0], got, c[1])
		}
	}
}
