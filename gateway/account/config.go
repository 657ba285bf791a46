package account

import (
	"slices"
	"sort"
	"time"

	"haidang/gateway/telemetry"
)

// FileName is the file of accounts in the data folder.
const FileName = "accounts.jsonl"

// PollInterval is how often a running gateway looks whether the file has
// changed.
const PollInterval = time.Second

// Config is the section accounts of the configuration: where accounts are kept, and
// what each may use.
type Config struct {
	File   string                              `yaml:"file"`   // default: accounts.jsonl in the data folder
	Limits map[telemetry.Role]telemetry.Limits `yaml:"limits"` // by role, where an account has none of its own
}

// Validate returns what is wrong with the configuration.
func (c Config) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	roles := make([]string, 0, len(c.Limits))
	for role := range c.Limits {
		roles = append(roles, string(role))
	}
	sort.Strings(roles)
	for _, role := range roles {
		if !slices.Contains(telemetry.Roles(), telemetry.Role(role)) {
			faults = append(faults, telemetry.Faultf("limits."+role, "role %q is not one of %v", role, telemetry.Roles()))
		}
		faults = append(faults, telemetry.Under("limits."+role, c.Limits[telemetry.Role(role)].Validate())...)
	}
	return faults
}
