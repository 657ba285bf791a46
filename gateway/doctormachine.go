package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"haidang/gateway/telemetry"
)

// Bounds of what the doctor finds in order.
const (
	littleRoom  = 512 << 20 // bytes of a disk
	fewInodes   = 10_000
	soonExpired = 21 * 24 * time.Hour // of a certificate
)

// room looks at the free space below dir and at what kind of file system it is.
func (x *examination) room(dir string) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		x.odd("disk", "", "the free space of %s cannot be read: %v", dir, err)
		return
	}
	free, size := float64(fs.Bavail)*float64(fs.Bsize), float64(fs.Blocks)*float64(fs.Bsize)
	do := "free space, or put the data folder on another disk; spool.max_bytes and influx.retention bound what is kept"
	switch {
	case fs.Flags&unix.ST_RDONLY != 0:
		x.wrong("disk", "mount it for writing; if it became read-only by itself it has an error: see dmesg", "%s is mounted read-only", dir)
	case free < littleRoom/8:
		x.wrong("disk", do, "%s free of %s: nothing more can be kept", inMiB(free), inMiB(size))
	case free < littleRoom || free < size/20:
		x.odd("disk", do, "%s free of %s", inMiB(free), inMiB(size))
	default:
		x.fine("disk", "%s free of %s", inMiB(free), inMiB(size))
	}
	if fs.Files > 0 && fs.Ffree < fewInodes {
		x.wrong("disk", "remove small files: `df -i` tells", "only %d more files can be made", fs.Ffree)
	}
	switch uint32(fs.Type) { // 32 bits with a sign on arm, where some of these do not fit
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC:
		x.wrong("disk", "put the data folder on a disk", "%s lies in memory: a power cut loses everything", dir)
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		x.odd("disk", "use a disk of the machine itself", "%s is on a network: what is acknowledged is as safe as that network's promises", dir)
	}
}

// clock looks whether the time is set and kept.
func (x *examination) clock(now time.Time) {
	if now.Year() < 2025 {
		x.wrong("clock", "set it (timedatectl set-time), and give the machine a clock with a battery or a GPS", "it says %s: readings without a time of their own get a wrong one", now.Format(time.RFC3339))
		return
	}
	var state unix.Timex
	if _, err := unix.Adjtimex(&state); err != nil {
		x.fine("clock", "%s", now.UTC().Format(time.RFC3339))
		return
	}
	if state.Status&unix.STA_UNSYNC != 0 {
		x.odd("clock", "turn on NTP (timedatectl set-ntp true), or feed gpsd's time to chrony", "%s, but nothing keeps it: it will drift by seconds a day", now.UTC().Format(time.RFC3339))
		return
	}
	x.fine("clock", "%s, kept to within %s", now.UTC().Format(time.RFC3339), time.Duration(state.Maxerror)*time.Microsecond)
}

// certificates looks at those of the listeners.
func (x *examination) certificates() {
	c := &x.cfg
	for _, l := range []struct{ key, cert, private string }{
		{"broker.tls", c.Broker.TLS.Cert, c.Broker.TLS.Key}, {"broker.websocket", c.Broker.Websocket.Cert, c.Broker.Websocket.Key},
		{"console.tls", c.Console.TLS.Cert, c.Console.TLS.Key}, {"influx.tls", c.Influx.TLS.Cert, c.Influx.TLS.Key},
	} {
		if l.cert == "" {
			continue
		}
		about := "certificate of " + l.key
		pair, err := tls.LoadX509KeyPair(l.cert, l.private)
		if err != nil {
			x.wrong(about, "name a certificate and its key that the user haidang can read", "%v", err)
			continue
		}
		x.certificate(about, pair.Leaf)
	}
}

func (x *examination) certificate(about string, cert *x509.Certificate) {
	left := time.Until(cert.NotAfter)
	until := cert.NotAfter.UTC().Format(time.DateOnly)
	switch {
	case time.Now().Before(cert.NotBefore):
		x.wrong(about, "set the clock, or wait", "it holds only from %s", cert.NotBefore.UTC().Format(time.RFC3339))
	case left < 0:
		x.wrong(about, "renew it: the files are read again when they change", "it expired on %s: clients refuse it", until)
	case left < soonExpired:
		x.odd(about, "renew it: the files are read again when they change", "it expires on %s, in %s", until, telemetry.Duration(left.Round(time.Hour)))
	default:
		x.fine(about, "it holds until %s, for %s", until, names(cert))
	}
}

func names(cert *x509.Certificate) string {
	list := append([]string{}, cert.DNSNames...)
	for _, ip := range cert.IPAddresses {
		list = append(list, ip.String())
	}
	if len(list) == 0 {
		return fmt.Sprintf("no name (%s)", cert.Subject.CommonName)
	}
	return fmt.Sprint(list)
}
