package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

// yard is a gateway with one device, which remembers what it was asked.
type yard struct {
	state  telemetry.StateChange
	change telemetry.DeviceChange
	act    LetterAct
	admit  Admission
	fail   error
}

func (y *yard) sources() Sources {
	s := newDesk().sources()
	s.Devices = func(site, owner string) any { return []string{site, owner} }
	s.Device = func(id string) (any, bool) { return map[string]string{"id": id}, id == "kim-long" }
	s.DeviceChanges = func(id string, limit int) (any, error) { return []string{fmt.Sprint(id, limit)}, nil }
	s.SetState = func(_ context.Context, c telemetry.StateChange) error { y.state = c; return y.fail }
	s.ChangeDevice = func(_ context.Context, c telemetry.DeviceChange) error { y.change = c; return y.fail }
	s.Admit = func(_ context.Context, a Admission) (any, error) {
		y.admit = a
		return map[string]int{"retried": 2}, y.fail
	}
	s.DeadLetter = func(_ context.Context, id string) (any, error) {
		return map[string]string{"id": id}, y.fail
	}
	s.ActOnLetter = func(_ context.Context, a LetterAct) (any, error) {
		y.act = a
		return map[string]string{"id": a.ID}, y.fail
	}
	return s
}

func TestDeviceAPI(t *testing.T) {
	y := &yard{}
	_, base, _ := start(t, y.sources())
	const who = `"by":" Lan ","why":"lau"`
	for _, test := range []struct {
		method, path, body string
		status             int
		want               string // in the answer
	}{
		{"GET", "/api/v1/devices?site=hue&owner=x", "", 200, `["hue","x"]`},
		{"GET", "/api/v1/devices?place=hue", "", 400, `"field":"place"`},
		{"GET", "/api/v1/devices/kim-long", "", 200, `{"id":"kim-long"}`},
		{"GET", "/api/v1/devices/kim-lung", "", 404, "not registered"},
		{"DELETE", "/api/v1/devices/kim-long", "", 405, "expected GET, HEAD, PATCH"},
		{"GET", "/api/v1/devices/kim-long/changes?limit=7", "", 200, "kim-long7"},
		{"GET", "/api/v1/devices/kim-long/changes?limit=0", "", 400, "1..1000"},
		{"POST", "/api/v1/devices/kim-long/state", `{"state":"maintenance","value":"level_m","for":"2h",` + who + `}`, 200, "kim-long"},
		{"POST", "/api/v1/devices/kim-long/state", `{"state":"broken",` + who + `}`, 400, `"field":"state"`},
		{"POST", "/api/v1/devices/kim-long/state", `{"state":"measuring","for":"1h",` + who + `}`, 400, `"field":"for"`},
		{"POST", "/api/v1/devices/kim-long/state", `{"state":"maintenance","for":"-1h",` + who + `}`, 400, `"field":"for"`},
		{"POST", "/api/v1/devices/kim-long/state", `{"state":"maintenance","why":"x"}`, 400, `"field":"by"`},
		{"POST", "/api/v1/devices/kim-long/state", `{"state":"maintenance","by":"x"}`, 400, `"field":"why"`},
		{"POST", "/api/v1/devices/kim-long/state", `{"stat":"maintenance",` + who + `}`, 400, `"field":"stat"`},
		{"POST", "/api/v1/devices/kim-long/state", `{} {}`, 400, "something follows"},
		{"GET", "/api/v1/devices/kim-long/state", "", 405, "expected POST"},
		{"PATCH", "/api/v1/devices/kim-long", `{"name":"Kim Long","facts":{"alarm2_m":2.1,"zone":null},` + who + `}`, 200, "kim-long"},
		{"PATCH", "/api/v1/devices/kim-long", `{"facts":3,` + who + `}`, 400, `"field":"facts"`},
		{"PATCH", "/api/v1/devices/kim-long", `{` + who + `}`, 400, "nothing is to be changed"},
		{"PATCH", "/api/v1/devices/kim-long", `[]`, 400, "not an object"},
		{"POST", "/api/v1/devices/tram-la/admission", `{"do":"approve","name":" Trạm lạ ","interval":"10m",` + who + `}`, 200, `"retried":2`},
		{"POST", "/api/v1/devices/tram-la/admission", `{"do":"let in",` + who + `}`, 400, `"field":"do"`},
		{"POST", "/api/v1/devices/tram-la/admission", `{"do":"refuse","name":"x",` + who + `}`, 400, `"field":"name"`},
		{"POST", "/api/v1/devices/tram-la/admission", `{"do":"refuse","by":"Lan"}`, 400, `"field":"why"`},
		{"POST", "/api/v1/devices/tram-la/admission", `{"does":"refuse"}`, 400, `"field":"does"`},
		{"POST", "/api/v1/devices/%20/admission", `{"do":"refuse",` + who + `}`, 404, "not registered"},
		{"GET", "/api/v1/devices/tram-la/admission", "", 405, "expected POST"},
		{"GET", "/api/v1/deadletters?state=new", "", 400, `"field":"state"`},
		{"GET", "/api/v1/deadletters/3-1", "", 200, "3-1"},
		{"POST", "/api/v1/deadletters/3-1/retry", `{"by":"Lan","again":true}`, 200, "3-1"},
		{"POST", "/api/v1/deadletters/3-1/drop", `{}`, 400, `"field":"by"`},
		{"POST", "/api/v1/deadletters/3-1/burn", `{"by":"Lan"}`, 404, ""},
	} {
		var headers []string
		if test.body != "" {
			headers = []string{"Content-Type", "application/json"}
		}
		status, _, body := call(t, test.method, base+test.path, test.body, headers...)
		if status != test.status || !strings.Contains(body, test.want) {
			t.Errorf("%s %s %s: %d %s; want %d and %q", test.method, test.path, test.body, status, body, test.status, test.want)
		}
	}
	if s := y.state; s.Device != "kim-long" || s.Value != "level_m" || s.State != telemetry.Maintenance || s.For != 2*time.Hour || s.By != "Lan" || s.Why != "lau" || s.At.IsZero() {
		t.Errorf("the state is %+v", s)
	}
	if set, _ := json.Marshal(y.change.Set); string(set) != `{"facts.alarm2_m":2.1,"facts.zone":null,"name":"Kim Long"}` || y.change.By != "Lan" {
		t.Errorf("the change is %+v", y.change)
	}
	if a := y.admit; a.Device != "tram-la" || a.Do != "approve" || a.Name != "Trạm lạ" || a.Interval != "10m" || a.By != "Lan" || a.At.IsZero() {
		t.Errorf("the admission is %+v", a)
	}
	if y.act.ID != "3-1" || y.act.Do != "retry" || !y.act.Again {
		t.Errorf("the act is %+v", y.act)
	}
	for _, test := range []struct {
		fail   error
		status int
		want   string
	}{
		{telemetry.ErrUnknownDevice, 404, "not registered"},
		{fmt.Errorf("x: %w", ErrUnavailable), 503, "cannot do this now"},
		{errors.New("lat: latitude 123 is not in -90..90"), 400, `"field":"lat"`},
		{errors.New("kim-long is measuring already"), 400, "measuring already"},
	} {
		y.fail = test.fail
		if status, _, body := call(t, "POST", base+"/api/v1/devices/kim-long/state", `{"state":"maintenance",`+who+`}`, "Content-Type", "application/json"); status != test.status || !strings.Contains(body, test.want) {
			t.Errorf("%v: %d %s", test.fail, status, body)
		}
	}
	for fail, want := range map[error]int{
		ErrUnknownLetter: 404, ErrSettled: 409, ErrUnavailable: 503, &telemetry.Rejection{}: 422,
	} {
		y.fail = fmt.Errorf("x: %w", fail)
		if status, _, body := call(t, "POST", base+"/api/v1/deadletters/3-1/drop", `{"by":"Lan"}`, "Content-Type", "application/json"); status != want {
			t.Errorf("%v: %d %s", fail, status, body)
		}
	}
}

// TestAttached: what comes over the attached listener is an administrator's,
// whatever its Host; what comes over the network is not.
func TestAttached(t *testing.T) {
	sources := newDesk().sources()
	sources.Device = func(string) (any, bool) { return nil, true }
	c, err := New(Config{Listen: "127.0.0.1:0"}, sources, prometheus.NewRegistry(), nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Attach(listener)
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() { stopped <- c.Run(ctx) }()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) },
	}}
	response, err := client.Get("http://anything/api/v1/warnings")
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("over the socket: %v, %v", response, err)
	}
	response.Body.Close()
	seen := make(chan bool, 2)
	mark := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- isAdministrator(r) })
	administrator(mark).ServeHTTP(nil, (&http.Request{}).WithContext(ctx))
	mark.ServeHTTP(nil, (&http.Request{}).WithContext(ctx))
	if first, second := <-seen, <-seen; !first || second {
		t.Errorf("administrator: %v over the socket, %v else", first, second)
	}
	stop()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
