package ioc

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestFailuresTogetherCountAsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate{first: time.Second, max: time.Hour}
		began := time.Now()
		_ = sleep(t.Context(), time.Second)
		for range 8 {
			g.failed(began, 0)
		}
		if closed := g.closedFor(); g.failures != 1 || closed > time.Second || closed < time.Second/2 {
			t.Errorf("%d failures, closed for %s; want 1 and 0.5 to 1 s", g.failures, closed)
		}
		if err := g.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		g.failed(time.Now(), 0)
		if closed := g.closedFor(); g.failures != 2 || closed > 2*time.Second || closed < time.Second {
			t.Errorf("%d failures, closed for %s; want 2 and 1 to 2 s", g.failures, closed)
		}
		g.succeeded()
		if closed := g.closedFor(); closed > 0 {
			t.Errorf("closed for %s after a success", closed)
		}
	})
}

func TestLedgerIsBounded(t *testing.T) {
	l := newLedger()
	for i := range maxRemembered + 100 {
		l.accept(fmt.Sprint(i), 1)
	}
	if len(l.delivered) != maxRemembered || len(l.order) != maxRemembered {
		t.Errorf("remembers %d, want %d", len(l.delivered), maxRemembered)
	}
	if l.passed("0", 1) != nil || l.passed("100", 1) != errDuplicate {
		t.Error("the first heard of are to be forgotten first")
	}
}
