package telemetry

import "testing"

func TestNearest(t *testing.T) {
	names := []string{"level_m", "rain_mm", "speed_kn", "mức"}
	for _, c := range []struct{ written, want string }{
		{"level_n", "level_m"}, // one letter changed
		{"levle_m", "level_m"}, // two swapped
		{"levelm", "level_m"},  // one dropped
		{"mưc", "mức"},         // letters are counted, not bytes
		{"temperature_c", ""},  // nothing is near
		{"", ""},
	} {
		if got := Nearest(c.written, names); got != c.want {
			t.Errorf("%q: %q, want %q", c.written, got, c.want)
		}
	}
	if got := DidYouMean("level_n", names); got != ": did you mean level_m?" {
		t.Error(got)
	}
	if got := DidYouMean("zzz", names); got != "" {
		t.Error(got)
	}
}
