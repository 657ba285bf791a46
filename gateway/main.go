// Command haidang is an IoT telemetry gateway and early-warning engine: it
// takes readings in over MQTT, Modbus and AIS, keeps every one in InfluxDB,
// evaluates rules as they arrive and delivers warnings.
//
// This package wires the others together and supervises them; it is the only
// one that knows them all. See ARCHITECTURE.md.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker.
var version = "development"

func main() {
	// A reload signal must find its handler even while the gateway starts.
	reload := make(chan os.Signal, 1)
	if len(os.Args) > 1 && os.Args[1] == "run" { // the others end with their terminal
		signal.Notify(reload, syscall.SIGHUP)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal ends the process at once
	os.Exit(execute(ctx, environment{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, reload: reload}, os.Args[1:]))
}
