package demo

import (
	"bytes"
	"embed"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"haidang/gateway/telemetry"
)

// Files is the configuration of the demo: gateway.yaml and the files that it
// names, relative to the root. The addresses in it are DefaultAddresses.
//
//go:embed gateway.yaml devices.yaml zones.geojson rules/*.yaml
var Files embed.FS

// Devices of the story.
const (
	kimLong    = "demo-kim-long"
	phuOc      = "demo-phu-oc"
	namDong    = "demo-nam-dong"
	aLuoi      = "demo-a-luoi"
	silentBoat = "mmsi-574990007" // falls silent in each cycle
	leaverBoat = "mmsi-574990012" // leaves the fishing ground in each cycle
)

// vesselPrefix begins the id of a device that is heard over AIS.
const vesselPrefix = "mmsi-"

// devices returns the devices of the embedded devices.yaml.
func devices() ([]telemetry.Device, error) {
	text, err := Files.ReadFile("devices.yaml")
	if err != nil {
		return nil, fmt.Errorf("read the demo's devices: %w", err)
	}
	var file struct {
		Devices []telemetry.Device `yaml:"devices"`
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		return nil, fmt.Errorf("decode the demo's devices.yaml: %w", err)
	}
	return file.Devices, nil
}

// registry returns the demo's devices by id.
func registry() (map[string]telemetry.Device, error) {
	list, err := devices()
	if err != nil {
		return nil, err
	}
	byID := make(map[string]telemetry.Device, len(list))
	for _, d := range list {
		byID[d.ID] = d
	}
	return byID, nil
}

// vessels returns the devices that are heard over AIS, in the order of the file.
func vessels(list []telemetry.Device) []telemetry.Device {
	var out []telemetry.Device
	for _, d := range list {
		if strings.HasPrefix(d.ID, vesselPrefix) {
			out = append(out, d)
		}
	}
	return out
}
