package spool

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"

	"haidang/gateway/telemetry"
)

// What a process does with a log that several machines share.
const (
	// RoleIngest appends readings, to all partitions. Any number of machines do.
	RoleIngest = "ingest"
	// RoleRules follows one partition with the engine, appends ticks to it and the
	// engine's steps to STEPS, and empties it.
	RoleRules = "rules"
	// RoleStore follows one partition into the store.
	RoleStore = "store"
	// RoleIOC is the centre: the only writer of the warnings, follower of STEPS.
	RoleIOC = "ioc"
	// RolePost follows the warnings for a share of the recipients, and notes in
	// ATTEMPTS what became of it. Recipients are shared out like readings: a share
	// has the number of a partition.
	RolePost = "post"
)

// MaxPartitions bounds Config.Partitions.
const MaxPartitions = 64

// A Part is what one Spool does with the log in a cluster. At most one Spool at a
// time has it, but for RoleIngest, which any number have. The zero Part is
// everything: a gateway that has the log for itself.
type Part struct {
	Role      string // "" or one of the roles
	Partition int    // of RoleRules, RoleStore and RolePost, from 0; else 0
}

// String returns the name of the part's lease, such as rules.3; gateway for
// everything. Roster.Holders has the leases by that name.
func (p Part) String() string {
	switch p.Role {
	case "":
		return wholeLease
	case RoleRules, RoleStore, RolePost:
		return p.Role + "." + strconv.Itoa(p.Partition)
	}
	return p.Role
}

// shared reports whether any number may have the part.
func (p Part) shared() bool { return p.Role == RoleIngest }

// one reports whether the part is about one partition.
func (p Part) one() bool {
	return p.Role == RoleRules || p.Role == RoleStore || p.Role == RolePost
}

// tells reports whether the part has to do with what recipients were told.
func (p Part) tells() bool { return p.Role == RoleIOC || p.Role == RolePost }

// writesWarnings reports whether the part may append to the warnings.
func (p Part) writesWarnings() bool { return p.Role == "" || p.Role == RoleIOC }

// fits says why there cannot be such a part of a log.
func (p Part) fits(config Config) error {
	partitions := max(config.Partitions, 1)
	switch p.Role {
	case "":
		if partitions > 1 {
			return fmt.Errorf("spool.partitions %d needs roles: a gateway without them follows one partition", partitions)
		}
		return nil
	case RoleIngest, RoleRules, RoleStore, RoleIOC, RolePost:
	default:
		return fmt.Errorf("role %q is not one of ingest, rules, store, ioc, post", p.Role)
	}
	switch {
	case config.URL == "":
		return errors.New("roles need spool.url: machines share a log in a cluster")
	case p.Partition < 0 || p.Partition >= partitions || p.Partition > 0 && !p.one():
		return fmt.Errorf("there is no part %s of a log with spool.partitions %d", p, partitions)
	}
	return nil
}

// PartitionOf returns the partition of a site's readings, from 0 to partitions-1:
// FNV-1a (64 bits) of its name modulo the number of partitions. Readings of a
// device without a site are treated as those of a site with the device's name; a
// recipient's share (RolePost) is that of its name.
// It must never change: what a cluster has is distributed so.
func PartitionOf(site string, partitions int) int {
	if partitions <= 1 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(site))
	return int(h.Sum64() % uint64(partitions))
}

func partitionOf(r *telemetry.Reading, partitions int) int {
	if r.Site == "" {
		return PartitionOf(r.Device, partitions)
	}
	return PartitionOf(r.Site, partitions)
}

// A place is where a log is.
type place struct {
	kind     string // logReadings and so on
	name     string // the same; with the number where there are several partitions
	stream   string
	subject  string   // of our frames
	subjects []string // of the stream
}

// readingsPlace is where the readings of a partition are. A log of one partition
// is where it was before there were partitions.
func readingsPlace(partition, partitions int) place {
	n := strconv.Itoa(partition)
	subject := logReadings + "." + n
	if partitions <= 1 {
		return place{logReadings, logReadings, streamReadings, subject, []string{logReadings + ".*"}}
	}
	return place{logReadings, logReadings + "_" + n, streamReadings + "_" + n, subject, []string{subject}}
}

// stepsPlace is where the engines' steps are; those of a partition are under a
// subject of their own.
func stepsPlace(part Part) place {
	p := singlePlace(logSteps, streamSteps)
	p.subject = p.subjects[0]
	if part.Role == RoleRules {
		p.subject = logSteps + "." + strconv.Itoa(part.Partition)
	}
	return p
}

func singlePlace(log, stream string) place {
	return place{log, log, stream, log + ".0", []string{log + ".*"}}
}

// places are those of the logs in a cluster that the part has to do with.
func (s *Spool) places(config Config) []place {
	part := s.options.Part
	var all []place
	for p := range config.Partitions {
		if !part.one() || p == part.Partition {
			all = append(all, readingsPlace(p, config.Partitions))
		}
	}
	all = append(all, singlePlace(logWarnings, streamWarnings), singlePlace(logLetters, streamLetters))
	if part != (Part{}) {
		all = append(all, stepsPlace(Part{}))
	}
	if part.tells() {
		all = append(all, singlePlace(logAttempts, streamAttempts))
	}
	return all
}
