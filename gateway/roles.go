package main

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"haidang/gateway/console"
	"haidang/gateway/influx"
	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// What a machine of a centre may do: the parts of the log, see spool.Part, and
// the page and API handed on to whoever has the part ioc.
const (
	roleIngest  = spool.RoleIngest
	roleRules   = spool.RoleRules
	roleStore   = spool.RoleStore
	roleIOC     = spool.RoleIOC
	roleConsole = "console"

	// rolePost is no role of a configuration: machines with the role ioc share the
	// recipients by it.
	rolePost = spool.RolePost
)

func roleNames() []string { return []string{roleIngest, roleRules, roleStore, roleIOC, roleConsole} }

// has reports whether the machine has a role. One without roles has none of them:
// it does everything by itself.
func (c *Configuration) has(role string) bool { return slices.Contains(c.Roles, role) }

// takesIn reports whether sources and the broker run here.
func (c *Configuration) takesIn() bool { return len(c.Roles) == 0 || c.has(roleIngest) }

// validateRoles reports what is wrong with the roles, and what cannot be with them.
func (c *Configuration) validateRoles() []telemetry.Fault {
	var faults []telemetry.Fault
	fault := func(path, format string, args ...any) {
		faults = append(faults, telemetry.Faultf(path, format, args...))
	}
	if len(c.Roles) == 0 {
		return nil
	}
	for i, role := range c.Roles {
		at := fmt.Sprintf("roles[%d]", i)
		switch {
		case !slices.Contains(roleNames(), role):
			fault(at, "role %q is not one of %s%s", role, strings.Join(roleNames(), ", "), telemetry.DidYouMean(role, roleNames()))
		case slices.Index(c.Roles, role) < i:
			fault(at, "role %q is there already", role)
		}
	}
	if c.Spool.URL == "" {
		fault("roles", "machines with roles share a log in a cluster: spool.url is missing (docs/cluster.md)")
	}
	if c.Influx.URL == "" && (c.has(roleStore) || c.has(roleIOC)) {
		fault("influx.url", "machines with the roles store or ioc need an InfluxDB elsewhere: influx.url is missing")
	}
	if _, err := c.advertised(""); err != nil {
		fault("advertise", "%v", err)
	}
	return append(faults, c.elsewhere()...)
}

// withoutRoles reports what a gateway that does everything by itself cannot do. The
// same file may be that of machines whose roles are told by a flag, so that it is a
// fault of running it only.
func (c *Configuration) withoutRoles() []telemetry.Fault {
	if len(c.Roles) > 0 || c.Spool.Partitions <= 1 {
		return nil
	}
	return []telemetry.Fault{telemetry.Faultf("spool.partitions", "%d partitions need roles: a gateway that does everything follows one (--roles, or roles: [%s])", c.Spool.Partitions, strings.Join(roleNames(), ", "))}
}

// elsewhere reports what would need parts of the program that are on different
// machines.
func (c *Configuration) elsewhere() []telemetry.Fault {
	var faults []telemetry.Fault
	for i := range c.IOC {
		if s := c.IOC[i].Siren; s != nil && s.Line != "" && c.has(roleIOC) {
			faults = append(faults, telemetry.Faultf(fmt.Sprintf("ioc[%d].siren.line", i), "a siren on a Modbus line is switched by the gateway that polls the line: not with roles; let a gateway beside it follow the warnings (mqtt), or call it by webhook"))
		}
	}
	for i := range c.Bridges {
		if c.Bridges[i].Follower() != "" && c.has(roleIngest) {
			faults = append(faults, telemetry.Faultf(fmt.Sprintf("bridges[%d].forward", i), "forwarding follows the whole log, and a machine with roles does not: forward from a gateway without roles"))
		}
	}
	if c.Uplink.Sends() {
		faults = append(faults, telemetry.Faultf("uplink.url", "pushing on follows the whole log, and a machine with roles does not: push from a gateway without roles"))
	}
	if c.takesIn() && len(c.Roles) > 0 && c.writePort() != "" && !c.hasAccounts() {
		open := influx.Config{Listen: c.writePort()}
		faults = append(faults, telemetry.Under("influx", open.Exposed())...)
	}
	return faults
}

// writePort is where a machine with the role ingest takes /write of InfluxDB's
// clients: influx.listen, unless that is off or the default; "" for nowhere.
// A gateway without roles has no such port when its InfluxDB is elsewhere.
func (c *Configuration) writePort() string {
	if l := c.Influx.Listen; c.has(roleIngest) && l != influx.Off && l != influx.DefaultConfig().Listen {
		return l
	}
	return ""
}

// advertised is the URL of this machine's console for the others. toward is an
// address of the cluster: when the console listens everywhere, it is this machine's
// address on the way there.
func (c *Configuration) advertised(toward string) (string, error) {
	if c.Advertise != "" {
		u, err := url.Parse(c.Advertise)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			return "", fmt.Errorf("%q is not a URL like http://centre-1:8080", c.Advertise)
		}
		return u.Scheme + "://" + u.Host, nil
	}
	listen := c.Console.Listen
	if listen == "" {
		listen = console.DefaultListen
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", nil // the console's own fault
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = ownAddress(toward)
	}
	return scheme(c.Console.TLS.Cert) + "://" + net.JoinHostPort(host, port), nil
}

// ownAddress is this machine's address on the way to another, its name where that
// cannot be told. Nothing is sent.
func ownAddress(toward string) string {
	first, _, _ := strings.Cut(toward, ",")
	if u, err := url.Parse(strings.TrimSpace(first)); err == nil && u.Hostname() != "" {
		conn, err := net.Dial("udp", net.JoinHostPort(u.Hostname(), "4222"))
		if err == nil {
			defer conn.Close()
			if at, ok := conn.LocalAddr().(*net.UDPAddr); ok {
				return at.IP.String()
			}
		}
	}
	return ownName()
}
