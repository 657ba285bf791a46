package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// A verdict grades a finding of the doctor.
type verdict string

const (
	fine  verdict = "fine"
	odd   verdict = "odd"   // works, and deserves a look
	wrong verdict = "WRONG" // does not work, or will not for long
)

// A finding is one thing that the doctor looked at.
type finding struct {
	Verdict verdict `json:"verdict"`
	About   string  `json:"about"`
	Says    string  `json:"says"`
	Do      string  `json:"do,omitempty"` // what to do about it
}

// An examination looks at one installation, whether a gateway runs on it or not.
type examination struct {
	cfg      Configuration
	file     string // "": the built-in configuration
	findings []finding
}

func (x *examination) fine(about, format string, args ...any) {
	x.findings = append(x.findings, finding{fine, about, fmt.Sprintf(format, args...), ""})
}

func (x *examination) odd(about, do, format string, args ...any) {
	x.findings = append(x.findings, finding{odd, about, fmt.Sprintf(format, args...), do})
}

func (x *examination) wrong(about, do, format string, args ...any) {
	x.findings = append(x.findings, finding{wrong, about, fmt.Sprintf(format, args...), do})
}

func doctorVerb() verb {
	var file, data string
	var asJSON bool
	return verb{
		name: "doctor", args: "[--config FILE] [--data DIR] [--json]",
		short:   "look at a running or broken installation: what is wrong, and what to do",
		example: "sudo haidang doctor --config /etc/haidang/gateway.yaml --data /var/lib/haidang",
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&file, "config", "", "the configuration of the installation")
			f.StringVar(&data, "data", "", "its data folder (default: that of the configuration)")
			f.BoolVar(&asJSON, "json", false, "print the findings as JSON")
		},
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) > 0 {
				return usagef("doctor takes no arguments, not %q", args)
			}
			x := &examination{file: file}
			x.examine(ctx, data)
			if asJSON {
				if err := jsonLine(env.stdout, x.findings); err != nil {
					return err
				}
			} else {
				x.print(env.stdout)
			}
			if n := x.count(wrong); n > 0 {
				return fmt.Errorf("%s of %d wrong", count(n, "finding"), len(x.findings))
			}
			return nil
		},
	}
}

// examine goes from the ground up: what a finding explains is found before it.
func (x *examination) examine(ctx context.Context, data string) {
	known := x.configuration(data)
	x.dataFolder()
	x.clock(time.Now())
	running := x.instance(ctx)
	if known {
		x.certificates()
		if !running {
			x.ports()
			x.lines(ctx)
		}
		x.partners(ctx)
	}
}

// configuration reports whether it can be read.
func (x *examination) configuration(data string) bool {
	cfg, w, err := readConfiguration(x.file, nil)
	name := x.file
	if name == "" {
		name = "built-in"
	}
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			x.wrong("configuration", "mend it; `haidang check --config "+name+"` tells the same", "%s", strings.TrimSpace(line))
		}
		running := runningGateway{data: data, file: x.file}
		x.cfg = defaults()
		if folder, err := running.folder(); err == nil {
			x.cfg.Data = folder
		}
		return false
	}
	x.cfg = cfg
	if data != "" {
		x.cfg.Data = data
	}
	x.fine("configuration", "%s: %s, %s, %s", name, count(len(w.document.Devices), "device"), count(len(w.document.Rules), "rule"), count(len(cfg.IOC), "recipient"))
	if len(cfg.IOC) == 0 {
		x.odd("recipients", "add one under ioc: in the configuration", "nobody is told of warnings: they are seen on the page, in Grafana and over MQTT only")
	}
	return true
}

func (x *examination) count(v verdict) (n int) {
	for _, f := range x.findings {
		if f.Verdict == v {
			n++
		}
	}
	return n
}

func (x *examination) print(to io.Writer) {
	for _, f := range x.findings {
		fmt.Fprintf(to, "%-5s  %s: %s\n", f.Verdict, f.About, f.Says)
		if f.Do != "" {
			fmt.Fprintf(to, "       -> %s\n", f.Do)
		}
	}
}

// dataFolder looks at rights and room.
func (x *examination) dataFolder() {
	dir := x.cfg.Data
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		parent := filepath.Dir(dir)
		if _, err := os.Stat(parent); err != nil {
			x.wrong("data folder", "make it, owned by the user that haidang runs as", "neither %s nor the folder that it is to be in is there", dir)
			return
		}
		x.fine("data folder", "%s is not there yet: it is made at the first start", dir)
		dir = parent
	case err != nil:
		x.wrong("data folder", "run the doctor as root, or as the user that haidang runs as", "%v", err)
		return
	case !info.IsDir():
		x.wrong("data folder", "move that file away, or name another folder under data:", "%s is a file", dir)
		return
	default:
		x.writable(dir)
		x.setAside(dir)
	}
	x.room(dir)
}

// setAside tells of files that were found damaged.
func (x *examination) setAside(dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "spool", "aside", "*")) // the pattern is good
	if len(files) > 0 {
		x.odd("data folder", "`haidang deadletter list --reason damaged` says what was lost; look at the disk (smartctl, dmesg); remove the files when nobody wants to read more out of them",
			"%s of the log was damaged and set aside, the newest is %s", count(len(files), "file"), newest(files))
	}
}

// newest returns the file that was set aside last; its name ends with the time.
func newest(files []string) string {
	return slices.MaxFunc(files, func(a, b string) int { return strings.Compare(filepath.Ext(a), filepath.Ext(b)) })
}

// writable tries to make a file: rights, a disk that became read-only and a full
// one all show there.
func (x *examination) writable(dir string) {
	f, err := os.CreateTemp(dir, ".doctor-")
	if err != nil {
		x.wrong("data folder", "let it belong to the user that haidang runs as (chown -R haidang: "+dir+"); if the disk became read-only, look at dmesg: it may be dying", "nothing can be written to %s: %v", dir, pathless(err))
		return
	}
	_, err = f.Write(make([]byte, 64<<10))
	if err == nil {
		err = f.Sync()
	}
	if gone := errors.Join(f.Close(), os.Remove(f.Name())); gone != nil && err == nil {
		err = gone
	}
	if err != nil {
		x.wrong("data folder", "free space, or replace the disk: dmesg tells which", "a file in %s cannot be kept: %v", dir, pathless(err))
		return
	}
	x.fine("data folder", "%s can be written", dir)
}
