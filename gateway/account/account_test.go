package account

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/gateway/telemetry"
)

var here = netip.MustParseAddr("203.0.113.7")

// A house is a file of accounts and a store that reads it.
type house struct {
	t    *testing.T
	path string
	*Store
	reg *prometheus.Registry
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, path: filepath.Join(t.TempDir(), FileName)}
	h.open()
	return h
}

func (h *house) open() {
	h.t.Helper()
	h.reg = prometheus.NewRegistry()
	var err error
	if h.Store, err = Open(Options{Path: h.path, Registerer: h.reg, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		h.t.Fatal(err)
	}
}

// edit changes the file, and the store reads it.
func (h *house) edit(change func(*Book) error) {
	h.t.Helper()
	if err := Edit(h.path, change); err != nil {
		h.t.Fatal(err)
	}
	if err := h.Reload(); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) add(name string, role telemetry.Role, password string) (secret string) {
	h.t.Helper()
	h.edit(func(b *Book) (err error) {
		secret, err = b.Add(Record{Name: name, Role: role, Devices: map[telemetry.Role][]string{telemetry.RoleIntegrator: {"*"}}[role]}, password, true)
		return err
	})
	return secret
}

func (h *house) reason(user, secret string, from netip.Addr) string {
	h.t.Helper()
	a, err := h.Authenticate(h.t.Context(), user, secret, from)
	if err == nil {
		if a.Name != user {
			h.t.Errorf("%q is let in as %q", user, a.Name)
		}
		return ""
	}
	denial, ok := errors.AsType[*telemetry.Denial](err)
	if !ok {
		h.t.Fatalf("error %v is no denial", err)
	}
	return denial.Reason
}

func TestWithoutAccountsEverybodyIsAnyone(t *testing.T) {
	h := newHouse(t)
	a, err := h.Authenticate(t.Context(), "x", "y", here)
	if err != nil || a.Name != "" || !a.May(telemetry.Administer, "") || h.On() {
		t.Fatalf("%+v %v", a, err)
	}
	h.add("kim-long", telemetry.RoleStation, "")
	if a.Life.Err() == nil {
		t.Error("what anyone began goes on when there are accounts")
	}
	if got := h.reason("x", "y", here); got != telemetry.DeniedWrong {
		t.Error(got)
	}
	if got := h.reason("", "", here); got != telemetry.DeniedMissing {
		t.Error(got)
	}
	h.edit(func(b *Book) error { return b.Remove("kim-long") })
	if !h.On() || h.reason("x", "y", here) == "" {
		t.Error("a gateway without an account lets everybody in")
	}
	if err := os.Remove(h.path); err != nil {
		t.Fatal(err)
	}
	if err := h.Reload(); err == nil || !h.On() {
		t.Errorf("the file is gone and nobody says so: %v", err)
	}
}

func TestSecretsOfDevices(t *testing.T) {
	h := newHouse(t)
	secret := h.add("kim-long", telemetry.RoleStation, "")
	if len(secret) < 26 {
		t.Fatalf("secret %q has less than 128 bits", secret)
	}
	text, err := os.ReadFile(h.path)
	if err != nil || bytes.Contains(text, []byte(secret)) {
		t.Fatalf("the file gives the secret away: %v", err)
	}
	info, err := os.Stat(h.path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info.Mode(), err)
	}
	if got := h.reason("kim-long", secret, here); got != "" {
		t.Fatal(got)
	}
	old, _ := h.Authenticate(t.Context(), "kim-long", secret, here)
	var next string
	h.edit(func(b *Book) (err error) { next, err = b.Rotate("kim-long", time.Hour); return err })
	if old.Life.Err() == nil {
		t.Error("a session goes on after its account was rotated")
	}
	for _, s := range []string{secret, next} {
		if got := h.reason("kim-long", s, here); got != "" {
			t.Error(got)
		}
	}
	h.edit(func(b *Book) (err error) { _, err = b.Rotate("kim-long", 0); return err })
	for _, s := range []string{secret, next, "", strings.Repeat("x", 1<<16)} {
		if h.reason("kim-long", s, here) == "" {
			t.Errorf("secret %.40q is good", s)
		}
	}
}

func TestTheOldSecretEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		secret := h.add("kim-long", telemetry.RoleStation, "")
		h.edit(func(b *Book) (err error) { _, err = b.Rotate("kim-long", time.Hour); return err })
		a, err := h.Authenticate(t.Context(), "kim-long", secret, here)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour + time.Minute) // of the bubble
		if a.Life.Err() == nil || h.reason("kim-long", secret, here) == "" {
			t.Error("the old secret is good for ever")
		}
	})
}

func TestPasswordsOfPeople(t *testing.T) {
	h := newHouse(t)
	h.add("lan", telemetry.RoleOperator, "thuyền về bến")
	for range 3 {
		if got := h.reason("lan", "thuyền về bến", here); got != "" {
			t.Fatal(got)
		}
	}
	start := time.Now()
	for range 1000 {
		h.reason("lan", "thuyền về bến", here)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("1000 logins of a password that was right took %s", took)
	}
	if got := h.reason("lan", "thuyền về bến!", here); got != telemetry.DeniedWrong {
		t.Error(got)
	}
	a, _ := h.Authenticate(t.Context(), "lan", "thuyền về bến", here)
	h.edit(func(b *Book) error { return b.SetPassword("lan", "another password") })
	if a.Life.Err() == nil || h.reason("lan", "thuyền về bến", here) == "" {
		t.Error("the old password is good")
	}
	for _, bad := range []string{"short", strings.Repeat("x", 257), "two\nlines of it"} {
		if err := Edit(h.path, func(b *Book) error { return b.SetPassword("lan", bad) }); err == nil {
			t.Errorf("password %.20q was taken", bad)
		}
	}
}

// A person is not locked out by who guesses elsewhere, and a station not even by
// who guesses at the same address.
func TestGuessingIsSlowedByAddress(t *testing.T) {
	h := newHouse(t)
	h.add("lan", telemetry.RoleOperator, "thuyền về bến")
	secret := h.add("kim-long", telemetry.RoleStation, "")
	bad, good := netip.MustParseAddr("2001:db8:1:2::3"), netip.MustParseAddr("2001:db8:1:3::3")
	seen := map[string]int{}
	var last error
	for i := range 40 {
		began := time.Now()
		_, last = h.Authenticate(t.Context(), "lan", fmt.Sprint("guess ", i), bad)
		denial, _ := errors.AsType[*telemetry.Denial](last)
		seen[denial.Reason]++
		if denial.Reason == telemetry.DeniedWrong && !denial.Until.After(began) {
			t.Error("a wrong password is answered at once")
		}
	}
	if seen[telemetry.DeniedWrong] > freeFailures+1 || seen[telemetry.DeniedSlow] < 30 {
		t.Errorf("40 guesses: %v", seen)
	}
	if got := h.reason("lan", "thuyền về bến", good); got != "" {
		t.Errorf("from elsewhere: %s", got)
	}
	if got := h.reason("kim-long", secret, bad); got != "" {
		t.Errorf("a good station beside a bad one: %s", got)
	}
	if got := h.reason("lan", "thuyền về bến", bad); got != "" {
		t.Errorf("a password that is remembered is not computed, and so not slowed: %s", got)
	}
	if n := testutil.ToFloat64(h.metrics.denials[telemetry.DeniedSlow]); n < 30 {
		t.Errorf("%v are counted", n)
	}
}

func TestAddressesAreBounded(t *testing.T) {
	s, now := newSlow(), time.Now()
	for i := range 3 * maxAddresses {
		s.failed(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), now)
	}
	if s.size() > maxAddresses {
		t.Errorf("%d addresses are remembered", s.size())
	}
	from := netip.MustParseAddr("10.1.1.1")
	for range 20 {
		s.failed(from, now)
	}
	if wait := s.wait(from, now); wait != lastPenalty {
		t.Errorf("after 20 failures the wait is %s", wait)
	}
	if wait := s.wait(from, now.Add(time.Minute)); wait != 0 {
		t.Errorf("a minute later it is %s", wait)
	}
	if p := s.failed(from, now.Add(time.Hour)); p != firstPenalty {
		t.Errorf("an hour later the penalty is %s", p)
	}
}

func TestTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.add("grafana", telemetry.RoleReader, "")
		h.add("boss", telemetry.RoleAdministrator, "a long password")
		var all, narrow string
		h.edit(func(b *Book) (err error) { all, err = b.AddToken("grafana", nil, 0); return err })
		h.edit(func(b *Book) (err error) {
			narrow, err = b.AddToken("boss", []telemetry.Right{telemetry.Read}, time.Hour)
			return err
		})
		if err := Edit(h.path, func(b *Book) error {
			_, err := b.AddToken("grafana", []telemetry.Right{telemetry.Rule}, 0)
			return err
		}); err == nil {
			t.Error("a reader gave a token a right that it has not")
		}
		a, err := h.Token(all, here)
		if err != nil || a.Name != "grafana" || !a.May(telemetry.Read, "") {
			t.Fatalf("%+v %v", a, err)
		}
		n, err := h.Token(narrow, here)
		if err != nil || !n.May(telemetry.Read, "") || n.May(telemetry.Administer, "") {
			t.Fatalf("%+v %v", n, err)
		}
		if _, err := h.Token(all+"x", here); err == nil {
			t.Error("a wrong token is good")
		}
		if got := h.reason("boss", all, here); got == "" {
			t.Error("the token of another account is good")
		}
		id := strings.Split(all, "_")[1]
		h.edit(func(b *Book) error { return b.RemoveToken("grafana", id) })
		if _, err := h.Token(all, here); err == nil || a.Life.Err() == nil {
			t.Error("a token that was taken away is good")
		}
		if n.Life.Err() != nil {
			t.Error("another token ended with it")
		}
		time.Sleep(2 * time.Hour) // of the bubble
		_, err = h.Token(narrow, here)
		if denial, _ := errors.AsType[*telemetry.Denial](err); denial == nil || denial.Reason != telemetry.DeniedExpired || n.Life.Err() == nil {
			t.Errorf("an old token: %v", err)
		}
	})
}

func TestCertificates(t *testing.T) {
	h := newHouse(t)
	h.add("kim-long", telemetry.RoleStation, "")
	h.add("boss", telemetry.RoleAdministrator, "a long password")
	cert := func(cn string, dns ...string) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: cn}, DNSNames: dns}
	}
	for _, c := range []struct {
		cert *x509.Certificate
		want string
	}{
		{cert("kim-long"), "kim-long"}, {cert("x", "y", "kim-long"), "kim-long"}, {cert("phu-oc"), ""}, {cert(""), ""}, {cert("boss"), ""},
	} {
		a, err := h.Certificate(c.cert)
		if (err == nil) != (c.want != "") || err == nil && a.Name != c.want {
			t.Errorf("%s %v: %+v %v", c.cert.Subject.CommonName, c.cert.DNSNames, a, err)
		}
	}
	h.edit(func(b *Book) error { return b.SetDisabled("kim-long", true) })
	if _, err := h.Certificate(cert("kim-long")); err == nil {
		t.Error("a locked account comes in with its certificate")
	}
}

func TestWhatDoesNotChangeLivesOn(t *testing.T) {
	h := newHouse(t)
	one, two := h.add("one", telemetry.RoleStation, ""), h.add("two", telemetry.RoleStation, "")
	a, _ := h.Authenticate(t.Context(), "one", one, here)
	b, _ := h.Authenticate(t.Context(), "two", two, here)
	h.edit(func(b *Book) error { return b.Remove("two") })
	h.edit(func(b *Book) (err error) { _, err = b.AddToken("one", nil, 0); return err })
	if a.Life.Err() != nil || b.Life.Err() == nil {
		t.Errorf("lives: %v %v", a.Life.Err(), b.Life.Err())
	}
}

func TestTheFileIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		var logs bytes.Buffer
		h.logger = slog.New(slog.NewTextHandler(&logs, nil))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.Run(ctx) }()
		if err := Edit(h.path, func(b *Book) error {
			_, err := b.Add(Record{Name: "a", Role: telemetry.RoleStation}, "", true)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * PollInterval) // of the bubble
		if h.Count() != 1 {
			t.Errorf("%d accounts", h.Count())
		}
		if err := os.WriteFile(h.path+".new", []byte("nonsense\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(h.path+".new", h.path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * PollInterval)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if h.Count() != 1 || strings.Count(logs.String(), "\n") != 1 || !strings.Contains(logs.String(), FileName+":1:") {
			t.Errorf("%d accounts after nonsense; said\n%s", h.Count(), logs.String())
		}
	})
}

// Each line of testdata/bad.txt is a line of a file, and what is said of it.
func TestFaultsOfTheFile(t *testing.T) {
	text, err := os.ReadFile("testdata/bad.txt")
	if err != nil {
		t.Fatal(err)
	}
	for block := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
		var lines, want []string
		for line := range strings.SplitSeq(block, "\n") {
			if w, ok := strings.CutPrefix(line, "want "); ok {
				want = append(want, w)
			} else {
				lines = append(lines, line)
			}
		}
		_, err := decode("accounts", []byte(strings.Join(lines, "\n")+"\n"))
		if err == nil || err.Error() != strings.Join(want, "\n") {
			t.Errorf("%s\n got %v\nwant %s", strings.Join(lines, "\n"), err, strings.Join(want, "\n"))
		}
	}
}

func TestOthersMayNotReadTheFile(t *testing.T) {
	h := newHouse(t)
	h.add("a", telemetry.RoleStation, "")
	if err := os.Chmod(h.path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := List(h.path); err == nil || !strings.Contains(err.Error(), "mode 0644") {
		t.Error(err)
	}
}

// Programs that change the file at the same time lose nothing of each other.
func TestEditsDoNotLoseEachOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if err := Edit(path, func(b *Book) error {
				_, err := b.Add(Record{Name: fmt.Sprint("d", i), Role: telemetry.RoleStation}, "", true)
				return err
			}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if records, err := List(path); err != nil || len(records) != 20 {
		t.Errorf("%d accounts, %v", len(records), err)
	}
}

func TestRequests(t *testing.T) {
	h := newHouse(t)
	secret := h.add("grafana", telemetry.RoleReader, "")
	var token string
	h.edit(func(b *Book) (err error) { token, err = b.AddToken("grafana", nil, 0); return err })
	for _, c := range []struct {
		header, query string
		door          bool
		want          int
	}{
		{"Token grafana:" + secret, "", true, 200},
		{"Token " + token, "", false, 200},
		{"bearer " + token, "", false, 200},
		{"Bearer " + secret, "", false, 401},
		{"Digest x", "", false, 401},
		{"", "u=grafana&p=" + secret, true, 200},
		{"", "u=grafana&p=" + secret, false, 401},
		{"", "", true, 401},
	} {
		r := httptest.NewRequest(http.MethodGet, "/query?"+c.query, nil)
		if c.header != "" {
			r.Header.Set("Authorization", c.header)
		}
		a, err := h.Door(c.door).Request(r)
		status := 200
		if denial, ok := errors.AsType[*telemetry.Denial](err); ok {
			status = denial.Status()
		} else if a.Name != "grafana" {
			t.Errorf("%+v", a)
		}
		if status != c.want {
			t.Errorf("%.20s %.20s: %d (%v), want %d", c.header, c.query, status, err, c.want)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.SetBasicAuth("grafana", secret)
	if a, err := h.Door(false).Request(r); err != nil || a.Name != "grafana" {
		t.Errorf("%+v %v", a, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"format":"haidang-accounts","version":1}
{"name":"a","role":"station","secret":"$sha256$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","created":"2026-11-22T00:00:00Z","changed":"2026-11-22T00:00:00Z"}
`))
	f.Add([]byte("{\"format\":\"haidang-accounts\",\"version\":2}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		records, err := decode("accounts", text)
		if err != nil {
			return
		}
		out, err := encode(records)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decode("accounts", out)
		if err != nil || fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", records) {
			t.Fatalf("%v\n%+v\n%+v", err, records, again)
		}
	})
}

func BenchmarkAuthenticate(b *testing.B) {
	path := filepath.Join(b.TempDir(), FileName)
	var secret string
	if err := Edit(path, func(book *Book) (err error) {
		for i := range 10_000 {
			if secret, err = book.Add(Record{Name: fmt.Sprint("d", i), Role: telemetry.RoleStation}, "", true); err != nil {
				return err
			}
		}
		_, err = book.Add(Record{Name: "lan", Role: telemetry.RoleOperator}, "thuyền về bến", true)
		return err
	}); err != nil {
		b.Fatal(err)
	}
	var s *Store
	b.Run("open 10000 accounts", func(b *testing.B) {
		for b.Loop() {
			var err error
			if s, err = Open(Options{Path: path, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)}); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, c := range []struct{ name, user, secret string }{{"device", "d9999", secret}, {"person, remembered", "lan", "thuyền về bến"}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Authenticate(b.Context(), c.user, c.secret, here); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("person, computed", func(b *testing.B) {
		hash := s.state.Load().entries["lan"].secret
		for b.Loop() {
			hash.fits("thuyền về bến")
		}
	})
}
