package telemetry

import (
	"context"
	"strings"
	"testing"
)

func TestTopicsOfRoles(t *testing.T) {
	own := func(role Role, more func(*Account)) *Account {
		a := &Account{Name: "kim-long", Role: role, Life: context.Background()}
		if more != nil {
			more(a)
		}
		return a
	}
	station, vessel, reader := own(RoleStation, nil), own(RoleVessel, nil), own(RoleReader, nil)
	lora := own(RoleIntegrator, func(a *Account) { a.Name, a.Devices = "lora", []string{"lora-*", "phu-oc"} })
	tasmota := own(RoleStation, func(a *Account) {
		a.Publish, a.Subscribe = []string{"tele/{account}/#", "x/{device}/+"}, []string{"cmnd/{account}/+"}
	})
	admin, anyone := own(RoleAdministrator, nil), &Account{}
	for _, c := range []struct {
		a       *Account
		publish bool
		topic   string
		want    bool
	}{
		{station, true, "telemetry/kim-long/river", true},
		{station, true, "telemetry/phu-oc/river", false},
		{station, true, "telemetry/kim-long.pump/river", true},
		{station, true, "telemetry/kim-long-2/river", false},
		{station, true, "telemetry/kim-long", false},
		{station, true, "telemetry/kim-long/river/more", false},
		{station, true, "telemetry/kim-long/", true}, // an empty kind, set aside later
		{station, true, "influx/kim-long", true},
		{station, true, "senml/kim-long", true},
		{station, true, "spBv1.0/hue/NDATA/kim-long", true},
		{station, true, "spBv1.0/hue/DDATA/kim-long/pump", true},
		{station, true, "spBv1.0/hue/DDATA/phu-oc/pump", false},
		{station, true, "commands/kim-long/reboot", false},
		{station, true, "warnings/kim-long/flood", false},
		{station, true, "chat", false},
		{station, true, "", false},
		{station, false, "commands/kim-long/#", true},
		{station, false, "commands/kim-long", true},
		{station, false, "commands/kim-long/+/x", true},
		{station, false, "commands/+/#", false},
		{station, false, "commands/#", false},
		{station, false, "#", false},
		{station, false, "+/kim-long/#", false},
		{station, false, "warnings/#", true},
		{station, false, "warnings/+/flood", true},
		{station, false, "warnings", true},
		{station, false, "telemetry/kim-long/river", false},
		{station, false, "$share/g/warnings/#", true},
		{station, false, "$share/g/telemetry/#", false},
		{station, false, "$share/g", false},
		{station, false, "$SYS/#", false},
		{vessel, true, "telemetry/kim-long/position", true},
		{vessel, true, "influx/kim-long", false},
		{lora, true, "telemetry/lora-1/river", true},
		{lora, true, "telemetry/phu-oc/river", true},
		{lora, true, "telemetry/lora/river", false},
		{lora, true, "telemetry/kim-long/river", false},
		{lora, false, "telemetry/lora-1/#", true},
		{lora, false, "telemetry/+/river", false},
		{lora, false, "commands/lora/#", true},
		{tasmota, true, "tele/kim-long/SENSOR", true},
		{tasmota, true, "tele/other/SENSOR", false},
		{tasmota, true, "x/kim-long/y", true},
		{tasmota, false, "cmnd/kim-long/power", true},
		{reader, true, "telemetry/kim-long/river", false},
		{reader, false, "telemetry/#", true},
		{reader, false, "telemetry/+/river", true},
		{reader, false, "#", false},
		{reader, false, "commands/#", false},
		{admin, true, "commands/kim-long/reboot", true},
		{admin, false, "#", true},
		{admin, false, "$SYS/broker/uptime", true},
		{anyone, true, "whatever/x", true},
		{anyone, false, "#", true},
		{anyone, false, "$SYS/#", true},
	} {
		got := c.a.MaySubscribe(c.topic)
		if c.publish {
			got = c.a.MayPublish(c.topic)
		}
		if got != c.want {
			t.Errorf("%s %s: publish %v on %q: %v", c.a.Role, c.a.Name, c.publish, c.topic, got)
		}
	}
}

// What covers a filter covers every topic that the filter matches.
func FuzzFilterIsCovered(f *testing.F) {
	f.Add("telemetry/kim-long/river", "telemetry/+/river", "kim-long")
	f.Add("commands/a", "commands/a/#", "a")
	f.Add("$SYS/x", "#", "a")
	f.Fuzz(func(t *testing.T, topic, filter, name string) {
		if strings.ContainsAny(topic, "+#") || !matches(filter, topic) || strings.Contains(topic, "{") {
			return
		}
		for _, role := range Roles() {
			a := &Account{Name: name, Role: role, Devices: []string{"x-*"}, Subscribe: []string{"{account}/+/{device}", "a/#"}}
			if a.MaySubscribe(filter) && !strings.HasPrefix(filter, "$share/") && !a.MaySubscribe(topic) {
				t.Errorf("%s may read %q and not %q", role, filter, topic)
			}
		}
	})
}

// matches is MQTT's own rule (MQTT 5, 4.7.1).
func matches(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") && (strings.HasPrefix(filter, "+") || strings.HasPrefix(filter, "#")) {
		return false
	}
	f, l := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i, want := range f {
		if want == "#" {
			return i == len(f)-1
		}
		if i >= len(l) || want != "+" && want != l[i] {
			return false
		}
	}
	return len(f) == len(l)
}

func TestRights(t *testing.T) {
	for role, want := range map[Role]string{
		RoleStation: "write", RoleVessel: "write", RoleReader: "read", RoleViewer: "read", RoleOperator: "read operate",
		RoleAuthor: "read operate rule", RoleAdministrator: "read write operate rule push administer", RoleAnyone: "read write operate rule push administer",
		RoleGateway: "push",
	} {
		a := &Account{Name: "x", Role: role}
		var have []string
		for _, right := range Rights() {
			if a.May(right, "") {
				have = append(have, string(right))
			}
		}
		if got := strings.Join(have, " "); got != want {
			t.Errorf("%s may %s, want %s", role, got, want)
		}
	}
	a := &Account{Name: "x", Role: RoleStation}
	if !a.May(Write, "x") || a.May(Write, "y") {
		t.Error("a station writes for itself alone")
	}
	a = &Account{Name: "x", Role: RoleAdministrator, Narrowed: []Right{Read}}
	if !a.May(Read, "") || a.May(Operate, "") {
		t.Error("a token has more than it was given")
	}
}

func TestMatchName(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"*", "anything", true}, {"a*", "a", true}, {"a*", "b", false},
		{"*b", "ab", true}, {"*b", "ba", false}, {"a*c", "abc", true}, {"a*c", "ac", true}, {"a*c", "acb", false},
		{"a*b*c", "axbyc", true}, {"a*b*c", "axc", false}, {"a*a", "a", false}, {"*a*", "bab", true},
	} {
		if got := matchName(c.pattern, c.name); got != c.want {
			t.Errorf("%q fits %q: %v", c.name, c.pattern, got)
		}
	}
}

func TestValidateAccount(t *testing.T) {
	for want, a := range map[string]Account{
		"": {Name: "kim-long", Role: RoleStation, Publish: []string{"tele/{account}/#"}},
		`name: account name "a/b" is not a name of at most 128 letters, digits and ._:- that begins with a letter or digit`:     {Name: "a/b", Role: RoleStation},
		`role: role "king" is not one of station, vessel, integrator, gateway, reader, viewer, operator, author, administrator`: {Name: "a", Role: "king"},
		"devices: an integrator speaks for devices that are named; * is for all":                                                {Name: "a", Role: RoleIntegrator},
		`devices[0]: "a/b" is not the name of a device, in which * may stand for any run of characters`:                         {Name: "a", Role: RoleStation, Devices: []string{"a/b"}},
		"devices: an account of role viewer speaks for no device; devices are for station, vessel, integrator and gateway":      {Name: "a", Role: RoleViewer, Devices: []string{"b"}},
		`publish[0]: filter "a/{x}": + # {account} and {device} must each fill a level, and # the last one`:                     {Name: "a", Role: RoleStation, Publish: []string{"a/{x}"}},
		`publish[0]: filter "warnings/#": only this program publishes there`:                                                    {Name: "a", Role: RoleStation, Publish: []string{"warnings/#"}},
		"limits.retained: retained -1 is negative; 0 is the default of the role":                                                {Name: "a", Role: RoleStation, Limits: Limits{Retained: -1}},
	} {
		var got []string
		for _, f := range a.Validate() {
			got = append(got, f.String())
		}
		if strings.Join(got, ";") != want {
			t.Errorf("got  %s\nwant %s", strings.Join(got, ";"), want)
		}
	}
}

func BenchmarkMayPublish(b *testing.B) {
	a := &Account{Name: "kim-long", Role: RoleStation}
	for b.Loop() {
		a.MayPublish("telemetry/kim-long/river")
	}
}

// A token that has less than its account has less over MQTT, too.
func TestTopicsOfNarrowTokens(t *testing.T) {
	for _, c := range []struct {
		role                Role
		rights              []Right
		publish, hear, read bool // on its own topic, its commands, all telemetry
	}{
		{RoleAdministrator, nil, true, true, true},
		{RoleAdministrator, []Right{Read}, false, true, true},
		{RoleAdministrator, []Right{Write}, true, false, false},
		{RoleAdministrator, []Right{Operate}, false, false, false},
		{RoleStation, nil, true, true, false},
		{RoleStation, []Right{Write}, true, true, false},
		{RoleReader, []Right{Read}, false, false, true},
	} {
		a := &Account{Name: "kim-long", Role: c.role, Narrowed: c.rights, Life: context.Background()}
		if a.MayPublish("telemetry/kim-long/river") != c.publish || a.MaySubscribe("commands/kim-long/#") != c.hear || a.MaySubscribe("telemetry/#") != c.read {
			t.Errorf("%s with a token for %v: publishes %t, hears %t, reads %t", c.role, c.rights,
				a.MayPublish("telemetry/kim-long/river"), a.MaySubscribe("commands/kim-long/#"), a.MaySubscribe("telemetry/#"))
		}
	}
}
