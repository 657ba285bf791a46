package modbus

import (
	"math"
	"testing"
)

func TestNumberText(t *testing.T) {
	for number, want := range map[float64]string{
		0: "0", 3.62: "3.62", -12: "-12", 1e-6: "0.000001", 2.112219e-39: "2.112219e-39", -3e-10: "-3e-10",
		math.MaxUint32: "4294967295", 1.5e20: "150000000000000000000", 3.4e38: "3.4e+38",
	} {
		if got := NumberText(number); got != want {
			t.Errorf("%v: %s, want %s", number, got, want)
		}
	}
}
