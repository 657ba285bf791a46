package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"haidang/drivers/modbus"
	"haidang/gateway/telemetry"
)

func modbusVerb() verb {
	return verb{
		name: "modbus", args: "read|write|profiles",
		short: "read and write Modbus instruments by hand, also while the gateway polls them",
		example: `haidang modbus read tcp://10.0.0.7 --unit 1 --address 0x1F4 --count 14
haidang modbus read line-1 kim-long
haidang modbus write line-1 kim-long relay 1`,
		verbs: []verb{modbusReadVerb(), modbusWriteVerb(), modbusProfilesVerb()},
	}
}

// A modbusCall is what the command line says of a reading.
type modbusCall struct {
	at      runningGateway
	unit    string
	table   string
	address string
	count   int
	kind    string
	order   string
	profile string
	folder  string
	timeout time.Duration
	echo    bool
}

func (c *modbusCall) flags(f *pflag.FlagSet) {
	f.StringVar(&c.unit, "unit", "1", "with a connection: the unit id")
	f.StringVar(&c.table, "table", "", "holding (default), input, coil or discrete")
	f.StringVar(&c.address, "address", "", "first address as on the wire, as 500 or 0x1F4")
	f.IntVar(&c.count, "count", 1, "how many registers, or bits")
	f.StringVar(&c.kind, "type", "", "int16, uint16, int32, uint32, int64, uint64, float32, float64, bcd16, bcd32 or string")
	f.StringVar(&c.order, "order", "", "ABCD (default), BADC, CDAB or DCBA")
	f.StringVar(&c.profile, "profile", "", "with a connection: read the values of this profile")
	f.StringVar(&c.folder, "profiles", "", "with a connection: folder of profiles beside the built-in ones")
	f.DurationVar(&c.timeout, "timeout", modbus.DefaultTimeout, "with a connection: for an answer")
	f.BoolVar(&c.echo, "echo", false, "with a connection: the adapter gives back what it sends")
	c.at.flags(f)
}

func modbusReadVerb() verb {
	var call modbusCall
	return verb{
		name: "read", args: "CONNECTION|LINE [UNIT] [--address A --count N]",
		short: "read registers, or the values of a profile",
		example: `haidang modbus read tcp://10.0.0.7:502 --unit 1 --table holding --address 0x1F4 --count 14
haidang modbus read serial:///dev/ttyUSB0?baud=4800 --address 0x100 --count 4 --type float32 --order CDAB
haidang modbus read rtu+tcp://10.0.0.8:8899 --unit 1 --profile weather-485
haidang modbus read line-1 kim-long                              # the values, through the running gateway
haidang modbus read line-1 kim-long --address 500 --count 14     # UNIT is an id, a device or MODEM/ID`,
		flags: call.flags,
		run: func(ctx context.Context, env environment, args []string) error {
			return call.run(ctx, env.stdout, args)
		},
	}
}

func (c *modbusCall) run(ctx context.Context, out io.Writer, args []string) error {
	if len(args) == 0 || len(args) > 2 {
		return usagef("read takes a connection such as tcp://host:502, or a line and a unit of the configuration, not %q", args)
	}
	ask := modbusRequest{Line: args[0], Unit: c.unit}
	direct := strings.Contains(args[0], "://")
	switch {
	case direct && len(args) == 2:
		return usagef("with a connection, the unit is --unit %s", args[1])
	case !direct && len(args) == 1:
		return usagef("the unit of line %s is missing: its id, its device or MODEM/ID", args[0])
	case c.address != "" && c.profile != "":
		return usagef("--profile reads the values of a profile, --address registers as they stand: one of them")
	case !direct && (c.profile != "" || c.folder != "" || c.echo):
		return usagef("--profile, --profiles and --echo are for a connection; a line has its own in the configuration")
	case !direct:
		ask.Unit = args[1]
	}
	if c.address == "" && (c.table != "" || c.kind != "") || c.address == "" && direct && c.profile == "" {
		return usagef("--address is missing: the first register, as in --address 0x1F4 --count 14")
	}
	if c.address != "" {
		first, err := registerAddress(c.address)
		if err != nil {
			return err
		}
		if ask.Table = c.table; ask.Table == "" {
			ask.Table = modbus.Holding
		}
		ask.First, ask.Count = first, c.count
	}
	var answer *modbusAnswer
	var err error
	if direct {
		answer, err = c.direct(ctx, ask)
	} else {
		answer, err = askModbus(ctx, &c.at, "read", ask)
	}
	if direct && modbus.IsRequest(err) {
		return usagef("%v", err)
	}
	if err != nil {
		return err
	}
	if ask.Table == "" {
		return writeValues(out, answer.Values)
	}
	return c.writeRows(out, ask, answer)
}

// registerAddress reads an address as manuals write it: 0500 is 500, not octal.
func registerAddress(text string) (int, error) {
	digits, base := text, 10
	if rest, ok := strings.CutPrefix(strings.ToLower(text), "0x"); ok {
		digits, base = rest, 16
	}
	first, err := strconv.ParseUint(digits, base, 16)
	if err != nil {
		return 0, usagef("--address %q is not in 0..65535, decimal or 0x and hexadecimal", text)
	}
	return int(first), nil
}

// direct makes a connection of its own for a reading.
func (c *modbusCall) direct(ctx context.Context, ask modbusRequest) (*modbusAnswer, error) {
	id, err := strconv.Atoi(c.unit)
	if err != nil || id < 0 || id > 255 {
		return nil, usagef("--unit %q is not in 1..247 (0 and 255 are for TCP)", c.unit)
	}
	profiles, err := c.profiles()
	if err != nil {
		return nil, err
	}
	cfg := modbus.Config{Name: "by-hand", Connect: ask.Line, Timeout: telemetry.Duration(c.timeout), Echo: c.echo,
		Units: []modbus.Unit{{ID: id, Device: "instrument", Profile: c.profile}}}
	if c.profile == "" {
		// The line wants a profile; registers are read without one.
		cfg.Units[0].Profile, cfg.Units[0].ID = "weather-485", max(1, min(id, 247))
	}
	line, err := modbus.New(cfg, profiles, nil, nil, nil)
	if err != nil {
		return nil, usagef("%v", err)
	}
	defer line.Close()
	return askToRead(ctx, line, &ask)
}

func (c *modbusCall) profiles() (*modbus.Profiles, error) {
	l := loader{in: folder{}}
	profiles := l.profiles(c.folder)
	if len(l.faults) > 0 {
		return nil, l.faults
	}
	if c.profile != "" && profiles.Profile(c.profile) == nil {
		return nil, usagef("profile %q is not known; known are %s", c.profile, strings.Join(profiles.Names(), ", "))
	}
	return profiles, nil
}

// askModbus asks the running gateway. When none runs on the data folder and the
// configuration is named, it uses the line itself.
func askModbus(ctx context.Context, at *runningGateway, act string, ask modbusRequest) (*modbusAnswer, error) {
	var answer modbusAnswer
	data, err := at.folder()
	if err != nil {
		return nil, err
	}
	_, _, notRunning := instanceClient(data)
	if notRunning == nil {
		err := at.ask(ctx, http.MethodPost, "/api/v1/modbus/"+act, nil, ask, &answer)
		return &answer, err
	}
	if at.file == "" {
		return nil, fmt.Errorf("%w, or name the configuration with --config: then the line is opened for this once", notRunning)
	}
	cfg, w, err := readConfiguration(at.file, nil)
	if err != nil {
		return nil, err
	}
	var lines []*modbus.Line
	for _, c := range cfg.Modbus {
		line, err := modbus.New(c, w.profiles, nil, nil, nil)
		if err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	line, err := lineCalled(lines, ask.Line)
	if err != nil {
		return nil, err
	}
	if line.Listens() {
		return nil, fmt.Errorf("line %q waits for modems, which dial in to the running gateway: %w", ask.Line, notRunning)
	}
	defer line.Close()
	if act == "write" {
		return askToWrite(ctx, line, &ask)
	}
	return askToRead(ctx, line, &ask)
}

func writeValues(out io.Writer, values []modbusValue) error {
	if len(values) == 0 {
		return errors.New("the unit answered, and none of its registers holds a value")
	}
	var table columns
	table.add("VALUE", "NUMBER", "QUALITY")
	for _, v := range values {
		text := strconv.Quote(v.Text)
		if v.Number != nil {
			text = modbus.NumberText(*v.Number)
		}
		table.add(v.Value, text, v.Quality.String())
	}
	return table.write(out)
}

func (c *modbusCall) writeRows(out io.Writer, ask modbusRequest, answer *modbusAnswer) error {
	raw, err := hex.DecodeString(answer.Hex)
	if err != nil {
		return fmt.Errorf("the gateway's answer is not understood: %w", err)
	}
	rows, err := modbus.Rows(modbus.Query{Table: ask.Table, First: ask.First, Count: ask.Count}, raw, c.kind, c.order)
	if err != nil {
		return usagef("%v", err)
	}
	heading := c.kind
	if heading == "" {
		heading = map[bool]string{true: "uint16", false: "bit"}[ask.Table == modbus.Holding || ask.Table == modbus.Input]
	}
	var table columns
	table.add("ADDRESS", "", "HEX", strings.ToUpper(heading))
	for _, row := range rows {
		table.add(strconv.Itoa(row.Address), fmt.Sprintf("0x%04X", row.Address), row.Hex, row.Text)
	}
	return table.write(out)
}

func modbusWriteVerb() verb {
	var at runningGateway
	var by string
	return verb{
		name: "write", args: "LINE UNIT NAME NUMBER [--by WHO]",
		short: "change a setting that the unit's configuration allows (writes), and read it back",
		example: `haidang modbus write line-1 kim-long relay 1
haidang modbus write --config gateway.yaml line-1 3 installation_height_m 6.25 --by Lan`,
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&by, "by", "", "who does it (default: who is logged in)")
			at.flags(f)
		},
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) != 4 {
				return usagef("write takes a line, a unit, a name and a number, not %q", args)
			}
			number, err := strconv.ParseFloat(args[3], 64)
			if err != nil || !telemetry.Finite(number) {
				return usagef("%q is not a number; for a negative one write -- before LINE", args[3])
			}
			who := (&signature{by: by}).who()
			answer, err := askModbus(ctx, &at, "write", modbusRequest{Line: args[0], Unit: args[1], Name: args[2], Number: &number, By: who})
			if err != nil {
				return err
			}
			proof := "read back, and the same"
			if !answer.ReadBack {
				proof = "confirmed by the unit; it cannot be read back"
			}
			_, err = fmt.Fprintf(env.stdout, "%s of %s is %s (0x%s): %s\n", args[2], answer.Device, args[3], strings.ToUpper(answer.Hex), proof)
			return err
		},
	}
}

func modbusProfilesVerb() verb {
	var own string
	return verb{
		name: "profiles", args: "[NAME]", short: "list the profiles of instruments, or the values of one",
		example: "haidang modbus profiles weather-485",
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&own, "profiles", "", "folder of profiles beside the built-in ones")
		},
		run: func(_ context.Context, env environment, args []string) error {
			if len(args) > 1 {
				return usagef("profiles takes the name of one, not %q", args)
			}
			call := modbusCall{folder: own}
			if len(args) == 1 {
				call.profile = args[0]
			}
			profiles, err := call.profiles()
			if err != nil {
				return err
			}
			var table columns
			if len(args) == 0 {
				table.add("PROFILE", "INSTRUMENT")
				for _, name := range profiles.Names() {
					table.add(name, profiles.Profile(name).Title)
				}
				return table.write(env.stdout)
			}
			p := profiles.Profile(args[0])
			table.add("VALUE", "TABLE", "ADDRESS", "TYPE")
			for _, r := range p.Registers {
				table.add(r.Value, r.Table, fmt.Sprintf("0x%04X", r.Address), r.Type)
			}
			for _, w := range p.Writes {
				table.add("write "+w.Name, w.Table, fmt.Sprintf("0x%04X", w.Address), w.Type)
			}
			if err := table.write(env.stdout); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "\n%s\n%s\n", p.Title, strings.TrimSpace(p.Source))
			return err
		},
	}
}
