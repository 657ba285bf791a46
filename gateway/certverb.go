package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"haidang/gateway/certificate"
	"haidang/gateway/telemetry"
)

func certVerb() verb {
	return verb{
		name: "cert", args: "selfsigned",
		short:   "certificates for a first trial of TLS",
		example: "haidang cert selfsigned --dir /etc/haidang/tls --host gateway.example.vn --host 203.0.113.7",
		verbs:   []verb{certSelfsignedVerb()},
	}
}

func certSelfsignedVerb() verb {
	var hosts, clients []string
	dir, life := "tls", "825d"
	return verb{
		name: "selfsigned", args: "[--dir DIR] [--host NAME]... [--client ACCOUNT]...",
		short: "make an authority, a server's certificate and, for accounts, certificates of devices",
		example: `haidang cert selfsigned --dir tls --host 192.0.2.10 --client kim-long
mosquitto_pub -h 192.0.2.10 -p 8883 --cafile tls/ca.pem --cert tls/client-kim-long.pem --key tls/client-kim-long-key.pem -q 1 -t telemetry/kim-long/river -m '{"level_m":3.62}'`,
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&dir, "dir", dir, "folder; an authority that is there is used again")
			f.StringArrayVar(&hosts, "host", nil, "name or address by which devices reach the gateway; may be repeated (default: this machine's)")
			f.StringArrayVar(&clients, "client", nil, "an account that gets a certificate; may be repeated")
			f.StringVar(&life, "life", life, "for how long the certificates are good; the authority for ten years at least")
		},
		run: func(_ context.Context, env environment, args []string) error {
			if len(args) > 0 {
				return usagef("selfsigned takes no arguments, only flags: %q", args)
			}
			good, err := telemetry.ParseDuration(life)
			if err != nil || good <= 0 {
				return usagef("--life %q is not a duration such as 825d", life)
			}
			for _, name := range clients {
				if !telemetry.ValidName(name) {
					return usagef("--client %q is not the name of an account", name)
				}
			}
			if len(hosts) == 0 {
				hosts = ownHosts()
			}
			written, err := certificate.SelfSigned(certificate.Request{Dir: dir, Hosts: hosts, Clients: clients, Life: good.Std(), Now: time.Now()})
			for _, name := range written {
				fmt.Fprintln(env.stdout, filepath.Join(dir, name))
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, `
Devices get %s. The configuration of the gateway:
  broker: {tls: {listen: ":8883", cert: %s, key: %s, client_ca: %s}}
`, filepath.Join(dir, certificate.AuthorityCert), filepath.Join(dir, certificate.ServerCert), filepath.Join(dir, certificate.ServerKey), filepath.Join(dir, certificate.AuthorityCert))
			return err
		},
	}
}

// ownHosts are the names and addresses of this machine.
func ownHosts() []string {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if name, err := os.Hostname(); err == nil && name != "localhost" {
		hosts = slices.Insert(hosts, 0, name)
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return hosts
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			hosts = append(hosts, n.IP.String())
		}
	}
	return hosts
}
