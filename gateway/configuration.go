package main

import (
	"cmp"
	"embed"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sort"
	"strings"

	"haidang/broker"
	"haidang/broker/mapping"
	"haidang/drivers/ais"
	"haidang/drivers/bridge"
	"haidang/drivers/link"
	"haidang/drivers/modbus"
	"haidang/drivers/serial"
	"haidang/gateway/account"
	"haidang/gateway/archive"
	"haidang/gateway/config"
	"haidang/gateway/console"
	"haidang/gateway/influx"
	"haidang/gateway/intake"
	"haidang/gateway/ioc"
	"haidang/gateway/ioc/cap"
	"haidang/gateway/route"
	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
	"haidang/gateway/uplink"
)

// builtin holds the kinds and devices that hold without configuration.
//
//go:embed builtin/*.yaml
var builtin embed.FS

// Configuration is gateway.yaml. Each package owns its part and says in its
// Config what the keys mean.
type Configuration struct {
	Data    string `yaml:"data"`    // folder of everything that is kept
	Gateway string `yaml:"gateway"` // this gateway's own name
	Strict  bool   `yaml:"strict"`  // set aside what the catalogue does not know

	// Roles are what this machine does of a centre that runs on several of them, with
	// one log in a cluster: ingest, rules, store, ioc and console. Left out, it does
	// everything by itself. The flag --roles wins.
	Roles []string `yaml:"roles"`
	// Advertise is where the other machines of the centre reach the console of this
	// one, as http://centre-1:8080. Default: the address of console.listen, where that
	// is one, else the machine's name.
	Advertise string `yaml:"advertise"`

	// UnknownDevices is what becomes of readings of devices that are not registered
	// and come over MQTT, HTTP or a bridge: accept (default), hold or refuse.
	UnknownDevices string `yaml:"unknown_devices"`

	Log logConfig `yaml:"log"`

	Accounts account.Config `yaml:"accounts"`

	Broker  broker.Config   `yaml:"broker"`
	Spool   spool.Config    `yaml:"spool"`
	Influx  influx.Config   `yaml:"influx"`
	Console console.Config  `yaml:"console"`
	Modbus  []modbus.Config `yaml:"modbus"`
	Serial  []serial.Config `yaml:"serial"`
	AIS     []ais.Config    `yaml:"ais"`
	IOC     []ioc.Config    `yaml:"ioc"`
	CAP     cap.Config      `yaml:"cap"` // how the gateway speaks CAP, and its feed
	Routes  []route.Config  `yaml:"routes"`
	Archive archive.Config  `yaml:"archive"` // what is kept for years

	Mappings []mapping.Mapping `yaml:"mappings"` // foreign topics and payloads
	Bridges  []bridge.Config   `yaml:"bridges"`  // other MQTT brokers
	Uplink   uplink.Config     `yaml:"uplink"`   // the centre that everything is pushed to

	Kinds    string   `yaml:"kinds"`    // file; adds to the built-in kinds
	Devices  string   `yaml:"devices"`  // file; instead of the built-in devices
	Zones    string   `yaml:"zones"`    // GeoJSON file
	Rules    []string `yaml:"rules"`    // files and patterns; instead of the built-in packs
	Profiles string   `yaml:"profiles"` // folder of Modbus profiles beside the built-in ones
}

// defaults is what holds where gateway.yaml leaves a key out.
func defaults() Configuration {
	return Configuration{
		Data:    "haidang-data",
		Gateway: ownName(),
		Broker:  broker.DefaultConfig(),
		Influx:  influx.DefaultConfig(),
		Console: console.Config{Listen: "127.0.0.1:8080"},
		AIS:     []ais.Config{{Name: "nmea", Connect: "listen://127.0.0.1:10110"}},
	}
}

// ownName is the machine's name where it can name a device.
func ownName() string {
	name, err := os.Hostname()
	if err != nil || !telemetry.ValidName(name) {
		return "gateway"
	}
	return name
}

// A folder is where a configuration's files are: on disk or within the binary.
type folder struct {
	inside fs.FS  // nil: on disk
	dir    string // on disk: what relative names are relative to
}

func (f folder) read(name string) ([]byte, error) {
	if f.inside != nil {
		return fs.ReadFile(f.inside, name)
	}
	return os.ReadFile(f.path(name))
}

func (f folder) path(name string) string {
	if f.inside != nil || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(f.dir, name)
}

// match returns the names that a pattern stands for, sorted.
func (f folder) match(pattern string) ([]string, error) {
	if f.inside != nil {
		return fs.Glob(f.inside, pattern)
	}
	names, err := filepath.Glob(f.path(pattern))
	for i, name := range names {
		// Relative again, as every name of the folder is.
		if within, err := filepath.Rel(f.path("."), name); err == nil && !filepath.IsAbs(pattern) {
			names[i] = within
		}
	}
	sort.Strings(names)
	return names, err
}

// at returns the folder's own folder called name.
func (f folder) at(name string) (fs.FS, error) {
	if f.inside != nil {
		return fs.Sub(f.inside, name)
	}
	return os.DirFS(f.path(name)), nil
}

// text reads one document of the folder; the error is a config.Faults.
func (f folder) text(name string) ([]byte, error) {
	text, err := f.read(name)
	if err != nil {
		return nil, config.Faults{{File: f.path(name), Fault: telemetry.Faultf("", "cannot be read: %v", pathless(err))}}
	}
	return text, nil
}

// open reads and parses one document of the folder.
func (f folder) open(name string) (*config.Document, error) {
	text, err := f.text(name)
	if err != nil {
		return nil, err
	}
	return config.Parse(f.path(name), text)
}

// pathless is an error of the file system without the path, which the line
// begins with already.
func pathless(err error) error {
	if at, ok := err.(*fs.PathError); ok {
		return at.Err
	}
	return err
}

// loadConfiguration reads gateway.yaml (name "": the defaults) and everything it
// names. The error is a config.Faults with every fault of every file.
func loadConfiguration(in folder, name string, change func(*Configuration)) (Configuration, *world, error) {
	cfg := defaults()
	doc := &config.Document{Name: "defaults"}
	var faults config.Faults
	if name != "" {
		var err error
		if doc, err = in.open(name); err != nil {
			return cfg, nil, err
		}
		faults = doc.Decode(&cfg)
	}
	if change != nil {
		change(&cfg)
	}
	w, more := loadWorld(in, &cfg, doc)
	faults = append(faults, more...)
	// What could not be decoded kept its default; validating that would only
	// repeat the fault in other words.
	faults = append(faults, unsaid(faults, doc.Locate(cfg.validate(w)))...)
	faults = append(faults, unsaid(faults, placeAll(cfg.unknownRecipients(w), w.parts, doc))...)
	faults = append(faults, cfg.accountFaults()...)
	if len(faults) > 0 {
		inOrder(faults)
		return cfg, nil, faults
	}
	return cfg, w, nil
}

// inOrder sorts faults by line within each file, the files as they first came.
func inOrder(faults config.Faults) {
	rank := map[string]int{}
	for _, f := range faults {
		if _, ok := rank[f.File]; !ok {
			rank[f.File] = len(rank)
		}
	}
	slices.SortStableFunc(faults, func(a, b config.Fault) int {
		return cmp.Or(rank[a.File]-rank[b.File], a.Line-b.Line)
	})
}

// unsaid returns those of more whose place has no fault yet.
func unsaid(said, more config.Faults) config.Faults {
	places := map[string]bool{}
	for _, f := range said {
		places[f.File+" "+f.Path] = true
	}
	var out config.Faults
	for _, f := range more {
		if !places[f.File+" "+f.Path] {
			out = append(out, f)
		}
	}
	return out
}

// differs names the keys, apart from those that a reload puts in force, in which
// the other configuration differs.
func (c *Configuration) differs(other *Configuration) []string {
	var keys []string
	a, b := reflect.ValueOf(*c), reflect.ValueOf(*other)
	for i := range a.NumField() {
		key := a.Type().Field(i).Tag.Get("yaml")
		switch key {
		case "kinds", "devices", "zones", "rules", "ioc", "routes", "mappings":
			continue
		}
		if !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			keys = append(keys, key)
		}
	}
	return keys
}

func (c *Configuration) validate(w *world) []telemetry.Fault {
	var faults []telemetry.Fault
	if c.Data == "" {
		faults = append(faults, telemetry.Faultf("data", "the data folder is missing"))
	}
	if !telemetry.ValidName(c.Gateway) {
		faults = append(faults, telemetry.Faultf("gateway", "gateway name %q is not a name of letters, digits and ._:- that begins with a letter or digit", c.Gateway))
	}
	if !intake.ValidUnknown(c.UnknownDevices) {
		faults = append(faults, telemetry.Faultf("unknown_devices", "unknown_devices %q is not one of accept, hold, refuse", c.UnknownDevices))
	}
	faults = append(faults, c.validateRoles()...)
	faults = append(faults, telemetry.Under("broker", c.Broker.Validate())...)
	faults = append(faults, telemetry.Under("mappings", mapping.Validate(c.Mappings))...)
	faults = append(faults, telemetry.Under("spool", c.Spool.Validate())...)
	faults = append(faults, telemetry.Under("influx", c.Influx.Validate())...)
	faults = append(faults, telemetry.Under("console", c.Console.Validate())...)
	faults = append(faults, telemetry.Under("log", c.Log.validate())...)
	faults = append(faults, c.sharedPorts()...)
	faults = append(faults, c.validateAccess()...)
	names := map[string]string{}
	for i := range c.Modbus {
		at := fmt.Sprintf("modbus[%d]", i)
		faults = append(faults, telemetry.Under(at, c.Modbus[i].Validate(w.profiles))...)
		faults = append(faults, unique(names, c.Modbus[i].Name, at)...)
	}
	for i := range c.Serial {
		at := fmt.Sprintf("serial[%d]", i)
		faults = append(faults, telemetry.Under(at, c.Serial[i].Validate())...)
		faults = append(faults, unique(names, c.Serial[i].Name, at)...)
	}
	faults = append(faults, c.sharedDevices()...)
	for i := range c.AIS {
		at := fmt.Sprintf("ais[%d]", i)
		faults = append(faults, telemetry.Under(at, c.AIS[i].Validate())...)
		faults = append(faults, unique(names, c.AIS[i].Name, at)...)
	}
	faults = append(faults, c.validateBridges(names)...)
	faults = append(faults, c.validateUplink()...)
	faults = append(faults, telemetry.Under("cap", c.CAP.Validate())...)
	faults = append(faults, telemetry.Under("archive", c.Archive.Validate())...)
	faults = append(faults, c.validateOutside()...)
	recipients := map[string]string{}
	for i := range c.IOC {
		at := fmt.Sprintf("ioc[%d]", i)
		faults = append(faults, telemetry.Under(at, c.IOC[i].Validate())...)
		if w.Kinds != nil {
			faults = append(faults, telemetry.Under(at, c.IOC[i].Unknown(w.Kinds))...)
		}
		faults = append(faults, unique(recipients, c.IOC[i].Name, at)...)
	}
	faults = append(faults, telemetry.Under("routes", route.Validate(c.Routes, c.routable(w)))...)
	return faults
}

// A listener is one TCP address of ours, and the key that names it.
type listener struct{ key, address string }

// listeners returns what a gateway listens on.
func (c *Configuration) listeners() []listener {
	all := []listener{{"console.listen", c.Console.Listen}}
	if !c.takesIn() {
		return all
	}
	all = append([]listener{
		{"broker.listen", c.Broker.Listen}, {"broker.tls.listen", c.Broker.TLS.Listen}, {"broker.websocket.listen", c.Broker.Websocket.Listen},
	}, all...)
	switch {
	case len(c.Roles) > 0:
		all = append(all, listener{"influx.listen", c.writePort()})
	case c.Influx.URL == "":
		all = append(all, listener{"influx.listen", c.Influx.Listen})
	}
	for i := range c.AIS {
		if address, listens := strings.CutPrefix(c.AIS[i].Connect, "listen://"); listens {
			all = append(all, listener{fmt.Sprintf("ais[%d].connect", i), address})
		}
	}
	for i := range c.Modbus {
		if address, listens := strings.CutPrefix(c.Modbus[i].Connect, "listen://"); listens {
			all = append(all, listener{fmt.Sprintf("modbus[%d].connect", i), address})
		}
	}
	return slices.DeleteFunc(all, func(l listener) bool {
		_, _, err := net.SplitHostPort(l.address)
		return err != nil // off, or its own package says what is wrong with it
	})
}

// sharedPorts reports listeners of ours that would take the same port: at the
// start only one of them would get it.
func (c *Configuration) sharedPorts() []telemetry.Fault {
	var datagrams []listener
	for i := range c.AIS {
		if address, udp := strings.CutPrefix(c.AIS[i].Connect, "udp://"); udp {
			datagrams = append(datagrams, listener{fmt.Sprintf("ais[%d].connect", i), address})
		}
	}
	return append(shared(c.listeners()), shared(datagrams)...)
}

func shared(listeners []listener) (faults []telemetry.Fault) {
	seen := map[string]string{} // key by address
	for _, l := range listeners {
		host, port, _ := net.SplitHostPort(l.address)
		if port == "0" {
			continue
		}
		first := ""
		for _, other := range []string{host, "", "0.0.0.0", "::"} {
			if first == "" {
				first = seen[net.JoinHostPort(other, port)]
			}
		}
		if first != "" {
			faults = append(faults, telemetry.Faultf(l.key, "port %s is that of %s already", port, first))
		} else {
			seen[l.address] = l.key
		}
	}
	return faults
}

// sharedDevices reports serial devices that two sources would open: only one of
// them would get it.
func (c *Configuration) sharedDevices() (faults []telemetry.Fault) {
	seen := map[string]string{}
	look := func(at, connect string) {
		target, err := link.Parse(connect)
		if err != nil || target.Scheme != link.Serial {
			return // its own package says what is wrong with it
		}
		if first, taken := seen[target.Address]; taken {
			faults = append(faults, telemetry.Faultf(at, "device %s is that of %s already", target.Address, first))
			return
		}
		seen[target.Address] = at
	}
	for i := range c.Modbus {
		look(fmt.Sprintf("modbus[%d].connect", i), c.Modbus[i].Connect)
	}
	for i := range c.Serial {
		look(fmt.Sprintf("serial[%d].connect", i), c.Serial[i].Connect)
	}
	for i := range c.AIS {
		look(fmt.Sprintf("ais[%d].connect", i), c.AIS[i].Connect)
	}
	return faults
}

// unique reports a name that another entry has already: sources are devices of
// link readings, and two of one name could not be told apart.
func unique(seen map[string]string, name, at string) []telemetry.Fault {
	if first, ok := seen[name]; ok && name != "" {
		return []telemetry.Fault{telemetry.Faultf(at+".name", "name %q is that of %s already", name, first)}
	}
	seen[name] = at
	return nil
}

// packName shortens a path within the binary for messages.
func packName(path string) string { return builtinMark + strings.TrimPrefix(path, "builtin/") }

// isPack reports whether a message's file is one within the binary.
func isPack(name string) bool { return strings.HasPrefix(name, builtinMark) }

const builtinMark = "built-in "
