package telemetry

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// A Role says what an account is, and so what it may do.
type Role string

// The roles. Station and Vessel are devices, Integrator and Gateway speak for several, a
// Reader is a program that reads, and the others are people, each of whom may
// do what the one before may.
const (
	RoleStation       Role = "station"
	RoleVessel        Role = "vessel"
	RoleIntegrator    Role = "integrator"
	RoleGateway       Role = "gateway"
	RoleReader        Role = "reader"
	RoleViewer        Role = "viewer"
	RoleOperator      Role = "operator"
	RoleAuthor        Role = "author"
	RoleAdministrator Role = "administrator"

	// RoleAnyone is everybody while there are no accounts, on loopback.
	RoleAnyone Role = ""
)

// Roles returns all roles that an account can have.
func Roles() []Role {
	return []Role{RoleStation, RoleVessel, RoleIntegrator, RoleGateway, RoleReader, RoleViewer, RoleOperator, RoleAuthor, RoleAdministrator}
}

// Person reports whether accounts of this role are people, who choose their
// passwords themselves.
func (r Role) Person() bool {
	switch r {
	case RoleViewer, RoleOperator, RoleAuthor, RoleAdministrator:
		return true
	}
	return false
}

// A Right is a kind of act that needs a permission apart from MQTT's topics.
type Right string

// The rights.
const (
	Read       Right = "read"       // warnings, devices, readings, metrics
	Write      Right = "write"      // readings of a device, over HTTP
	Operate    Right = "operate"    // acknowledge, shelve and comment on warnings
	Rule       Right = "rule"       // change rules
	Push       Right = "push"       // what a gateway has kept, to this one: package uplink
	Administer Right = "administer" // everything else
)

// Rights returns all rights.
func Rights() []Right { return []Right{Read, Write, Operate, Rule, Push, Administer} }

// rights are what a role may do.
func (r Role) rights() []Right {
	switch r {
	case RoleStation, RoleVessel, RoleIntegrator:
		return []Right{Write}
	case RoleGateway:
		return []Right{Push}
	case RoleReader, RoleViewer:
		return []Right{Read}
	case RoleOperator:
		return []Right{Read, Operate}
	case RoleAuthor:
		return []Right{Read, Operate, Rule}
	case RoleAdministrator, RoleAnyone:
		return Rights()
	}
	return nil
}

// publishes are the filters of topics that a role may publish on. {device} is
// each device that the account speaks for, {account} its own name.
func (r Role) publishes() []string {
	switch r {
	case RoleStation:
		return []string{"telemetry/{device}/+", "influx/{device}", "senml/{device}", "spBv1.0/+/+/{account}", "spBv1.0/+/+/{account}/+"}
	case RoleVessel:
		return []string{"telemetry/{device}/+", "senml/{device}"}
	case RoleIntegrator:
		return []string{"telemetry/{device}/+", "influx/{device}", "senml/{device}", "spBv1.0/+/+/{device}", "spBv1.0/+/+/{device}/+"}
	case RoleAdministrator, RoleAnyone:
		return []string{"#"}
	}
	return nil
}

// subscribes are the filters of topics that a role may read.
func (r Role) subscribes() []string {
	switch r {
	case RoleStation, RoleVessel:
		return []string{"commands/{account}/#", "warnings/#", "spBv1.0/+/NCMD/{account}", "spBv1.0/+/DCMD/{account}/+", "spBv1.0/STATE/+", "STATE/+"}
	case RoleIntegrator:
		return []string{"telemetry/{device}/#", "commands/{device}/#", "commands/{account}/#", "warnings/#",
			"spBv1.0/+/NCMD/{device}", "spBv1.0/+/DCMD/{device}/+", "spBv1.0/STATE/+", "STATE/+"}
	case RoleReader, RoleViewer, RoleOperator, RoleAuthor:
		return []string{"telemetry/#", "influx/#", "senml/#", "spBv1.0/#", "warnings/#"}
	case RoleAdministrator, RoleAnyone:
		return []string{"#", "$SYS/#"}
	}
	return nil
}

// Limits bound what an account may use; 0 is the default of its role.
type Limits struct {
	Connections   int  `json:"connections,omitempty" yaml:"connections"`       // MQTT connections at a time
	Sessions      int  `json:"sessions,omitempty" yaml:"sessions"`             // MQTT sessions, those whose client is away included
	MessagesPerS  int  `json:"messages_per_s,omitempty" yaml:"messages_per_s"` // published, of all its connections; bursts of ten seconds' worth
	BytesPerS     Size `json:"bytes_per_s,omitempty" yaml:"bytes_per_s"`       // published, likewise
	PacketBytes   Size `json:"packet_bytes,omitempty" yaml:"packet_bytes"`     // topic and payload of a message
	Inflight      int  `json:"inflight,omitempty" yaml:"inflight"`             // unacknowledged messages of a connection, each way
	Queue         int  `json:"queue,omitempty" yaml:"queue"`                   // messages that wait for a session that reads slowly or is away
	QueueBytes    Size `json:"queue_bytes,omitempty" yaml:"queue_bytes"`       // memory of what a session is owed
	Subscriptions int  `json:"subscriptions,omitempty" yaml:"subscriptions"`   // of a session
	Retained      int  `json:"retained,omitempty" yaml:"retained"`             // retained messages
}

// DefaultLimits are the limits of a role where an account has none of its own.
func (r Role) DefaultLimits() Limits {
	switch r {
	case RoleStation:
		return Limits{Connections: 4, Sessions: 8, MessagesPerS: 200, BytesPerS: 256 << 10, PacketBytes: 512 << 10, Inflight: 256, Queue: 1000, QueueBytes: 1 << 20, Subscriptions: 32, Retained: 32}
	case RoleVessel:
		return Limits{Connections: 2, Sessions: 4, MessagesPerS: 50, BytesPerS: 64 << 10, PacketBytes: 64 << 10, Inflight: 64, Queue: 200, QueueBytes: 256 << 10, Subscriptions: 16, Retained: 4}
	case RoleIntegrator:
		return Limits{Connections: 64, Sessions: 128, MessagesPerS: 20_000, BytesPerS: 16 << 20, PacketBytes: 1 << 20, Inflight: 256, Queue: 10_000, QueueBytes: 8 << 20, Subscriptions: 256, Retained: 1000}
	case RoleReader:
		return Limits{Connections: 16, Sessions: 32, MessagesPerS: 20, BytesPerS: 64 << 10, PacketBytes: 64 << 10, Inflight: 1024, Queue: 10_000, QueueBytes: 8 << 20, Subscriptions: 256, Retained: 4}
	case RoleAdministrator:
		return Limits{Connections: 64, Sessions: 128, MessagesPerS: 2000, BytesPerS: 4 << 20, PacketBytes: 1 << 20, Inflight: 1024, Queue: 10_000, QueueBytes: 8 << 20, Subscriptions: 1024, Retained: 1000}
	case RoleAnyone:
		return Limits{} // bounds of all together hold
	}
	return Limits{Connections: 8, Sessions: 16, MessagesPerS: 20, BytesPerS: 64 << 10, PacketBytes: 64 << 10, Inflight: 256, Queue: 1000, QueueBytes: 1 << 20, Subscriptions: 64, Retained: 4}
}

// Or returns the limits with those of other where they are 0.
func (l Limits) Or(other Limits) Limits {
	or(&l.Connections, other.Connections)
	or(&l.Sessions, other.Sessions)
	or(&l.MessagesPerS, other.MessagesPerS)
	or(&l.BytesPerS, other.BytesPerS)
	or(&l.PacketBytes, other.PacketBytes)
	or(&l.Inflight, other.Inflight)
	or(&l.Queue, other.Queue)
	or(&l.QueueBytes, other.QueueBytes)
	or(&l.Subscriptions, other.Subscriptions)
	or(&l.Retained, other.Retained)
	return l
}

func or[T int | Size](own *T, other T) {
	if *own == 0 {
		*own = other
	}
}

// Validate reports limits that are negative.
func (l Limits) Validate() []Fault {
	var faults []Fault
	for _, limit := range []struct {
		name string
		n    int64
	}{
		{"connections", int64(l.Connections)}, {"sessions", int64(l.Sessions)}, {"messages_per_s", int64(l.MessagesPerS)},
		{"bytes_per_s", int64(l.BytesPerS)}, {"packet_bytes", int64(l.PacketBytes)}, {"inflight", int64(l.Inflight)},
		{"queue", int64(l.Queue)}, {"queue_bytes", int64(l.QueueBytes)},
		{"subscriptions", int64(l.Subscriptions)}, {"retained", int64(l.Retained)},
	} {
		if limit.n < 0 {
			faults = append(faults, Faultf(limit.name, "%s %d is negative; 0 is the default of the role", limit.name, limit.n))
		}
	}
	return faults
}

// An Account is who somebody has proved to be: a device, a program or a person.
// It does not change once it was handed out.
type Account struct {
	Name string
	Role Role

	// Devices are the devices that it may speak for: names, in which * stands for
	// any run of characters. A station or a vessel speaks besides for the device of
	// its own name, and for those whose names go on with a dot: kim-long.pump.
	Devices []string
	// Publish and Subscribe are filters of topics that it may use besides those
	// of its role, with {account} and {device} as levels.
	Publish, Subscribe []string
	Limits             Limits // those of its role filled in
	// Narrowed are the only rights that hold when it came with a token that has
	// less than its account; nil: all of its role. Over MQTT they hold as well.
	Narrowed []Right

	// Life ends when the account is removed or changed; with it what it began
	// has to end. It is never nil. Its cause is a *Rotated when only the secret has
	// changed.
	Life context.Context
}

// Rotated is why the life of an account has ended that has a new secret, and may
// do what it might before. What was begun has to end, and whoever comes with the
// new secret finds what was kept for the account.
type Rotated struct{ Next *Account }

func (r *Rotated) Error() string { return fmt.Sprintf("account %q has a new secret", r.Next.Name) }

// Anyone is the account of everybody while there are no accounts. life ends
// when there are some.
func Anyone(life context.Context) *Account { return &Account{Life: life} }

// May reports whether the account has the right; device is the device that is
// written, or "" when the right is about none or not yet about one.
func (a *Account) May(right Right, device string) bool {
	if !slices.Contains(a.Role.rights(), right) || a.Narrowed != nil && !slices.Contains(a.Narrowed, right) {
		return false
	}
	return right != Write || device == "" || a.Speaks(device)
}

// Speaks reports whether the account may speak for the device.
func (a *Account) Speaks(device string) bool {
	switch a.Role {
	case RoleAdministrator, RoleAnyone:
		return true
	case RoleStation, RoleVessel, RoleGateway:
		// What hangs on a station, as devices do on an edge node of Sparkplug, is
		// named after it.
		if rest, own := strings.CutPrefix(device, a.Name); own && (rest == "" || rest[0] == '.') {
			return true
		}
	}
	return slices.ContainsFunc(a.Devices, func(pattern string) bool { return matchName(pattern, device) })
}

// SpeaksForAll reports whether no device needs to be asked about.
func (a *Account) SpeaksForAll() bool { return a.Speaks("*") } // which is no name

// MayPublish reports whether the account may publish on the topic. A token with
// narrower rights needs that to write.
func (a *Account) MayPublish(topic string) bool {
	return (a.Narrowed == nil || slices.Contains(a.Narrowed, Write)) && a.covers(a.Role.publishes(), a.Publish, topic)
}

// MaySubscribe reports whether the account may read every topic that the filter
// matches. A shared subscription needs what its filter needs. A token with narrower
// rights needs that to read, where its account has it: a device has not, and hears
// what is for it all the same.
func (a *Account) MaySubscribe(filter string) bool {
	if a.Narrowed != nil && slices.Contains(a.Role.rights(), Read) && !slices.Contains(a.Narrowed, Read) {
		return false
	}
	if rest, shared := strings.CutPrefix(filter, "$share/"); shared {
		_, within, ok := strings.Cut(rest, "/")
		if !ok {
			return false
		}
		filter = within
	}
	return a.covers(a.Role.subscribes(), a.Subscribe, filter)
}

func (a *Account) covers(role, own []string, filter string) bool {
	for _, list := range [2][]string{role, own} {
		for _, allowed := range list {
			if a.coversOne(allowed, filter) {
				return true
			}
		}
	}
	return false
}

// coversOne reports whether allowed matches every topic that filter matches.
// Wildcards at the beginning do not match topics that begin with $
// [MQTT-4.7.2-1].
func (a *Account) coversOne(allowed, filter string) bool {
	if strings.HasPrefix(filter, "$") && !strings.HasPrefix(allowed, "$") {
		return false
	}
	for {
		want, allowedRest, allowedMore := strings.Cut(allowed, "/")
		if want == "#" {
			return true
		}
		have, rest, more := strings.Cut(filter, "/")
		if have == "#" || !a.coversLevel(want, have) {
			return false
		}
		if !more || !allowedMore {
			// a/# takes in a itself (MQTT 5, 4.7.1.2).
			return more == allowedMore || allowedMore && allowedRest == "#"
		}
		allowed, filter = allowedRest, rest
	}
}

func (a *Account) coversLevel(want, have string) bool {
	switch want {
	case "+":
		return true
	case "{account}":
		return have == a.Name
	case "{device}":
		if have == "+" {
			return slices.Contains(a.Devices, "*")
		}
		return a.Speaks(have)
	}
	return have == want
}

// matchName reports whether a name fits a pattern in which * stands for any run
// of characters.
func matchName(pattern, name string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == name
	}
	name, ok := strings.CutPrefix(name, first)
	if !ok {
		return false
	}
	for {
		part, after, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(name, part)
		}
		at := strings.Index(name, part)
		if at < 0 {
			return false
		}
		name, rest = name[at+len(part):], after
	}
}

// Validate reports what is wrong with name, role, devices and filters.
func (a *Account) Validate() []Fault {
	var faults []Fault
	if !ValidName(a.Name) {
		faults = append(faults, Faultf("name", "account name %q is not a name of at most %d letters, digits and ._:- that begins with a letter or digit", a.Name, MaxNameRunes))
	}
	if !slices.Contains(Roles(), a.Role) {
		faults = append(faults, Faultf("role", "role %q is not one of %s", a.Role, joined(Roles())))
	}
	for i, pattern := range a.Devices {
		if plain := strings.ReplaceAll(pattern, "*", "x"); !ValidName(plain) {
			faults = append(faults, Faultf(fmt.Sprintf("devices[%d]", i), "%q is not the name of a device, in which * may stand for any run of characters", pattern))
		}
	}
	if a.Role == RoleIntegrator && len(a.Devices) == 0 {
		faults = append(faults, Faultf("devices", "an integrator speaks for devices that are named; * is for all"))
	}
	if a.Role == RoleGateway && len(a.Devices) == 0 {
		faults = append(faults, Faultf("devices", "a gateway speaks for devices that are named; * is for all"))
	}
	if (a.Role.Person() || a.Role == RoleReader) && len(a.Devices) > 0 {
		faults = append(faults, Faultf("devices", "an account of role %s speaks for no device; devices are for station, vessel, integrator and gateway", a.Role))
	}
	faults = append(faults, validateFilters("publish", a.Publish)...)
	faults = append(faults, validateFilters("subscribe", a.Subscribe)...)
	return append(faults, Under("limits", a.Limits.Validate())...)
}

func validateFilters(path string, filters []string) []Fault {
	var faults []Fault
	for i, filter := range filters {
		at := fmt.Sprintf("%s[%d]", path, i)
		levels := strings.Split(filter, "/")
		for j, level := range levels {
			switch {
			case level == "+", level == "{account}", level == "{device}", level == "#" && j == len(levels)-1:
			case strings.ContainsAny(level, "+#{}\x00"), filter == "":
				faults = append(faults, Faultf(at, "filter %q: + # {account} and {device} must each fill a level, and # the last one", filter))
			}
		}
		if path == "publish" && (levels[0] == "warnings" || strings.HasPrefix(filter, "$")) {
			faults = append(faults, Faultf(at, "filter %q: only this program publishes there", filter))
		}
	}
	return faults
}

func joined(roles []Role) string {
	words := make([]string, len(roles))
	for i, r := range roles {
		words[i] = string(r)
	}
	return strings.Join(words, ", ")
}

type accountKey struct{}

// WithAccount returns a context of what the account does.
func WithAccount(ctx context.Context, a *Account) context.Context {
	return context.WithValue(ctx, accountKey{}, a)
}

// AccountOf returns the account that acts, or nil when nobody asked who it is.
func AccountOf(ctx context.Context) *Account {
	a, _ := ctx.Value(accountKey{}).(*Account)
	return a
}
