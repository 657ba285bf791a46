package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"path/filepath"

	"haidang/broker"
	"haidang/gateway/account"
	"haidang/gateway/certificate"
	"haidang/gateway/config"
	"haidang/gateway/telemetry"
)

// accountsFile is where the accounts are.
func (c *Configuration) accountsFile() string {
	if c.Accounts.File != "" {
		return c.Accounts.File
	}
	return filepath.Join(c.Data, account.FileName)
}

// hasAccounts reports whether there are accounts, so that the gateway may be
// reached from elsewhere.
func (c *Configuration) hasAccounts() bool {
	return account.Exists(c.accountsFile())
}

// validateAccess reports what is wrong with who may reach the gateway and how.
func (c *Configuration) validateAccess() []telemetry.Fault {
	faults := telemetry.Under("accounts", c.Accounts.Validate())
	if t := c.Console.TLS; t.Cert != "" || t.Key != "" {
		faults = append(faults, telemetry.Under("console.tls", certificate.Files{Cert: t.Cert, Key: t.Key}.Validate())...)
	}
	if t := c.Influx.TLS; t.Cert != "" || t.Key != "" {
		faults = append(faults, telemetry.Under("influx.tls", certificate.Files{Cert: t.Cert, Key: t.Key}.Validate())...)
	}
	if !c.hasAccounts() {
		if c.takesIn() {
			faults = append(faults, telemetry.Under("broker", c.Broker.Exposed())...)
			faults = append(faults, telemetry.Under("influx", c.Influx.Exposed())...)
		}
		faults = append(faults, telemetry.Under("console", c.Console.Exposed())...)
	}
	return faults
}

// accountFaults reads the file of accounts for its faults.
func (c *Configuration) accountFaults() config.Faults {
	_, err := account.List(c.accountsFile())
	return asFaults(c.accountsFile(), err)
}

// asFaults gives errors of a file of accounts the form that is told with all
// others.
func asFaults(file string, err error) config.Faults {
	if err == nil {
		return nil
	}
	faults, ok := errors.AsType[account.Faults](err)
	if !ok {
		return config.Faults{{File: file, Fault: telemetry.Faultf("", "%v", err)}}
	}
	out := make(config.Faults, len(faults))
	for i, f := range faults {
		out[i] = config.Fault{Fault: f.Fault, File: f.File, Line: f.Line}
	}
	return out
}

// inClear returns a warning for each listener on which secrets cross a network
// unencrypted.
func (c *Configuration) inClear() []telemetry.Fault {
	var keys []string
	for _, path := range c.Broker.InClear() {
		keys = append(keys, "broker."+path)
	}
	if c.Console.InClear() {
		keys = append(keys, "console.listen")
	}
	if c.Uplink.InClear() {
		keys = append(keys, "uplink.url")
	}
	if c.Influx.InClear() {
		keys = append(keys, "influx.listen")
	}
	var out []telemetry.Fault
	for _, key := range keys {
		out = append(out, telemetry.Faultf(key, "secrets cross the network unencrypted on this listener; give it a certificate, or put it behind a tunnel"))
	}
	return out
}

// openAccounts opens the accounts and the certificates of listeners.
func (g *instance) openAccounts() error {
	store, err := account.Open(account.Options{Path: g.cfg.accountsFile(), Limits: g.cfg.Accounts.Limits, Registerer: g.reg, Logger: g.logger})
	if err != nil {
		if _, ok := errors.AsType[account.Faults](err); ok {
			return asFaults(g.cfg.accountsFile(), err)
		}
		return err
	}
	g.accounts = store
	return nil
}

// encryption returns the configuration of a listener with certificates, nil
// without.
func (g *instance) encryption(name string, files certificate.Files) (*tls.Config, error) {
	if files.Cert == "" {
		return nil, nil
	}
	keeper, err := certificate.Open(name, files, g.reg, g.logger)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return keeper.TLS(), nil
}

// scheme is that of the address of a listener with this certificate.
func scheme(certificate string) string {
	if certificate == "" {
		return "http"
	}
	return "https"
}

// guardBroker returns what the broker needs to know its clients.
func (g *instance) guardBroker() ([]broker.Option, error) {
	t, w := g.cfg.Broker.TLS, g.cfg.Broker.Websocket
	if t.Listen == "" {
		t = broker.TLS{}
	}
	if w.Listen == "" {
		w = broker.Websocket{}
	}
	listener, err := g.encryption("broker.tls", certificate.Files{Cert: t.Cert, Key: t.Key, ClientCA: t.ClientCA, Client: t.Client})
	if err != nil {
		return nil, err
	}
	websocket, err := g.encryption("broker.websocket", certificate.Files{Cert: w.Cert, Key: w.Key})
	if err != nil {
		return nil, err
	}
	return []broker.Option{broker.WithAccounts(g.accounts), broker.WithTLS(listener, websocket)}, nil
}

// guardStore lets only accounts read and write over InfluxDB's API.
func (g *instance) guardStore() error {
	t := g.cfg.Influx.TLS
	encryption, err := g.encryption("influx", certificate.Files{Cert: t.Cert, Key: t.Key})
	if err != nil {
		return err
	}
	g.store.Guard(g.accounts.Door(true))
	g.store.Encrypt(encryption)
	return nil
}

// guardConsole lets only accounts use the page and the API.
func (g *instance) guardConsole() error {
	t := g.cfg.Console.TLS
	encryption, err := g.encryption("console", certificate.Files{Cert: t.Cert, Key: t.Key})
	if err != nil {
		return err
	}
	g.console.Guard(g.accounts.Door(false))
	g.console.Encrypt(encryption)
	return nil
}
