package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"haidang/broker"
	"haidang/broker/mapping"
	"haidang/gateway/telemetry"
)

// maxTried bounds the payload that `mapping try` reads; the broker takes less.
const maxTried = 1 << 20

func mappingVerb() verb {
	return verb{
		name: "mapping", args: "try|list|show",
		short: "see what becomes of a payload, and the mappings for foreign devices",
		example: `haidang mapping try --topic tele/plug/SENSOR --use tasmota < payload.json
haidang mapping list --config gateway.yaml
haidang mapping show chirpstack`,
		verbs: []verb{mappingTryVerb(), mappingListVerb(), mappingShowVerb()},
	}
}

func mappingTryVerb() verb {
	var configuration, topic string
	var use []string
	return verb{
		name: "try", args: "--topic T [--config gateway.yaml] < payload",
		short: "print the readings that a payload gives, or why it gives none",
		example: `mosquitto_sub -h gateway -t tele/plug/SENSOR -C 1 | haidang mapping try --topic tele/plug/SENSOR --config gateway.yaml
echo '[{"n":"river/level","u":"m","v":3.62}]' | haidang mapping try --topic senml/kim-long`,
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&topic, "topic", "", "the topic of the message")
			f.StringVar(&configuration, "config", "", "the configuration whose mappings are used")
			f.StringSliceVar(&use, "use", nil, "these built-in mappings, besides")
		},
		run: func(_ context.Context, env environment, args []string) error {
			if len(args) > 0 || topic == "" {
				return usagef("want --topic and the payload on standard input")
			}
			cfg, w, err := readConfiguration(configuration, func(c *Configuration) {
				for _, name := range use {
					c.Mappings = append(c.Mappings, mapping.Mapping{Use: name})
				}
			})
			if err != nil {
				return err
			}
			payload, err := io.ReadAll(io.LimitReader(env.stdin, maxTried))
			if err != nil {
				return fmt.Errorf("read the payload: %w", err)
			}
			return tryPayload(env.stdout, &cfg, w, topic, payload)
		},
	}
}

// tryPayload tells what the gateway would make of a message.
func tryPayload(out io.Writer, cfg *Configuration, w *world, topic string, payload []byte) error {
	set, _ := mapping.Compile(cfg.Mappings) // they are valid
	if m := set.Match(topic); m != nil {
		fmt.Fprintf(out, "# mapping %s\n", m.Mapping())
	}
	readings, letters, known := broker.NewReader(cfg.Broker, set).Read(topic, payload)
	if !known {
		return fmt.Errorf("topic %q carries no telemetry: it is not one of telemetry/{device}/{kind}, influx/{device}, senml/{device} and spBv1.0/#, and no mapping is for it%s", topic, ofMappings(set))
	}
	for i := range readings {
		fmt.Fprintln(out, readingLine(&readings[i]))
		for _, odd := range unknownTo(w, &readings[i]) {
			fmt.Fprintf(out, "#   %s\n", odd)
		}
	}
	for i := range letters {
		fmt.Fprintf(out, "# set aside: %s: %s\n", letters[i].Reason, letters[i].Detail)
	}
	switch {
	case len(readings)+len(letters) == 0:
		fmt.Fprintln(out, "# passed over: the payload has nothing that the mapping looks for")
	case len(readings) == 0:
		return fmt.Errorf("the payload gives no reading")
	}
	return nil
}

func ofMappings(set *mapping.Set) string {
	topics := set.Topics()
	if len(topics) == 0 {
		return " (the configuration has none)"
	}
	var words []string
	for _, t := range topics {
		words = append(words, t[1])
	}
	return "; those are " + strings.Join(words, ", ")
}

// readingLine writes a reading for people.
func readingLine(r *telemetry.Reading) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", r.Device, r.Kind)
	for _, t := range r.Tags {
		fmt.Fprintf(&b, " [%s=%s]", t.Key, t.Value)
	}
	for i := range r.Values {
		v := &r.Values[i]
		if v.Text != "" {
			fmt.Fprintf(&b, " %s=%q", v.Name, v.Text)
		} else {
			fmt.Fprintf(&b, " %s=%v", v.Name, v.Number)
		}
		if v.Quality != telemetry.Good {
			fmt.Fprintf(&b, " (%s)", v.Quality)
		}
	}
	if r.Time.IsZero() {
		return b.String() + " at the time of receipt"
	}
	return b.String() + " at " + r.Time.UTC().Format(time.RFC3339Nano)
}

// unknownTo tells what of a reading the catalogue and the registry do not know.
func unknownTo(w *world, r *telemetry.Reading) (odd []string) {
	if w.Devices.Device(r.Device) == nil {
		odd = append(odd, fmt.Sprintf("device %s is not registered", r.Device))
	}
	kind := w.Kinds.Kind(r.Kind)
	if kind == nil {
		return append(odd, fmt.Sprintf("kind %s is not in the catalogue: no rule can read it", r.Kind))
	}
	for i := range r.Values {
		v := &r.Values[i]
		q := kind.Quantity(v.Name)
		switch {
		case q == nil:
			odd = append(odd, fmt.Sprintf("value %s is not one of kind %s in the catalogue", v.Name, r.Kind))
		case q.Words != (v.Text != ""):
			odd = append(odd, fmt.Sprintf("value %s is a %s in the catalogue", v.Name, map[bool]string{true: "word", false: "number"}[q.Words]))
		case v.Text == "" && !q.InRange(v.Number):
			odd = append(odd, fmt.Sprintf("value %s is outside the range of the catalogue: it will be bad", v.Name))
		}
	}
	return odd
}

func mappingListVerb() verb {
	var configuration string
	return verb{
		name: "list", args: "[--config gateway.yaml]", short: "list the mappings in force and those that are built in",
		example: "haidang mapping list --config gateway.yaml",
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&configuration, "config", "", "the configuration whose mappings are listed")
		},
		run: func(_ context.Context, env environment, args []string) error {
			if len(args) > 0 {
				return usagef("list takes no arguments")
			}
			cfg, _, err := readConfiguration(configuration, nil)
			if err != nil {
				return err
			}
			set, _ := mapping.Compile(cfg.Mappings) // they are valid
			for _, t := range set.Topics() {
				fmt.Fprintf(env.stdout, "%s\t%s\n", t[0], t[1])
			}
			_, err = fmt.Fprintf(env.stdout, "built in: %s\n", strings.Join(mapping.BuiltinNames(), ", "))
			return err
		},
	}
}

func mappingShowVerb() verb {
	return verb{
		name: "show", args: "NAME", short: "print a built-in mapping, to write your own from",
		example: "haidang mapping show tasmota",
		run: func(_ context.Context, env environment, args []string) error {
			if len(args) != 1 {
				return usagef("show takes the name of one mapping: %s", strings.Join(mapping.BuiltinNames(), ", "))
			}
			text, ok := mapping.BuiltinText(args[0])
			if !ok {
				return usagef("mapping %q is not built in; these are: %s", args[0], strings.Join(mapping.BuiltinNames(), ", "))
			}
			_, err := env.stdout.Write(text)
			return err
		},
	}
}

// oddMappings are mappings that share topics, with each other or with those of
// broker.topics.
func (c *Configuration) oddMappings() []telemetry.Fault {
	set, faults := mapping.Compile(c.Mappings)
	if len(faults) > 0 {
		return nil
	}
	return telemetry.Under("mappings", set.Odd())
}

// setMappings puts the mappings of a configuration that was read again in force.
func (g *instance) setMappings(cfg *Configuration) {
	if g.broker != nil {
		set, _ := mapping.Compile(cfg.Mappings) // they are valid
		g.broker.SetMappings(set)
	}
}
