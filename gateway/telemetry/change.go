package telemetry

import (
	"errors"
	"time"
)

// ErrUnknownDevice says that a device is neither registered nor was ever heard.
var ErrUnknownDevice = errors.New("no such device")

// A StateChange says that a device, or one of its values, is in maintenance, is
// being calibrated, or measures again.
type StateChange struct {
	Device string
	Value  string // level_m; "": all of the device
	// State is Maintenance or Calibrating; Good is measuring.
	State Quality
	For   time.Duration // how long; 0: until somebody ends it
	By    string        // who says so
	Why   string
	At    time.Time
}

// A DeviceChange is what somebody changes of a device while the gateway runs.
type DeviceChange struct {
	Device string
	// Set are new values by name: name, owner, interval, lat, lon and
	// facts.<name>. nil puts back what the configuration says.
	Set map[string]any
	By  string
	Why string
	At  time.Time
}
