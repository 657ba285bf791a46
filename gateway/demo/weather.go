package demo

import (
	"context"
	"math"
	"time"
)

// The RS-485 weather station of profile weather-485.
const (
	weatherUnit     = 1
	weatherRegister = 0x01F4 // the first of its block
	weatherStep     = 250 * time.Millisecond
)

// A weatherStation keeps the registers of its server up to date with the storm.
type weatherStation struct {
	server *ModbusServer
	storm  storm
	start  time.Time
}

// run changes the registers four times a second until ctx ends.
func (w *weatherStation) run(ctx context.Context) error {
	tick := time.NewTicker(weatherStep)
	defer tick.Stop()
	for {
		w.server.Set(weatherUnit, weatherRegister, w.storm.weatherRegisters(time.Since(w.start))...)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// weatherRegisters returns the registers from 0x01F4 on.
func (s storm) weatherRegisters(since time.Duration) []uint16 {
	x := s.phase(since)
	wind, rain := windHue.at(x), rainHue.at(x)
	noise := func(stream string) float64 { return s.noise(stream, since) }

	// Gusts of up to 1 m/s either way: less than the deadband of the wind rule.
	windMS := max(0, 3.2+18.5*wind+(0.4+0.6*wind)*noise("wind"))
	directionDeg := int(math.Mod(315+60*wind+12*noise("direction")+360, 360)) // north-west, veering to north-east
	temperatureC := 26.4 - 4.1*wind - 0.8*rain + 0.1*noise("temperature")
	humidityPct := min(99.5, 84+14*rain+4*wind+0.4*noise("humidity"))
	pressureHPa := calmPressure - (calmPressure-stormPressure)*wind + 0.2*noise("pressure")
	luxes := max(300, 21_000*(1-0.93*max(wind, rain))*(1+0.05*noise("light")))
	noiseDB := 44 + 24*max(rain, wind) + 1.5*noise("sound")
	pm25 := max(2, 19*(1-0.8*rain)+1.5*noise("pm25")) // rain washes the air
	pm10 := pm25*1.7 + 4
	totalMM := math.Mod(s.rainTotalMM("", since), 6553.6) // the counter has 16 bits

	lux := uint32(luxes)
	return []uint16{
		tenths(windMS),                   // 0x01F4 wind speed, 0.1 m/s
		beaufort(windMS),                 // 0x01F5 wind force
		uint16((directionDeg+22)/45) % 8, // 0x01F6 sector, 0 north, clockwise
		uint16(directionDeg),             // 0x01F7 wind direction, degrees
		tenths(humidityPct),              // 0x01F8 humidity, 0.1 %
		tenths(temperatureC),             // 0x01F9 temperature, 0.1 degrees, signed
		tenths(noiseDB),                  // 0x01FA noise, 0.1 dB
		uint16(math.Round(pm25)),         // 0x01FB PM2.5, ug/m3
		uint16(math.Round(pm10)),         // 0x01FC PM10, ug/m3
		tenths(pressureHPa / 10),         // 0x01FD pressure, 0.1 kPa
		uint16(lux >> 16), uint16(lux),   // 0x01FE illuminance, lux, high word first
		uint16(lux / 100),   // 0x0200 illuminance, 100 lux
		tenths(totalMM),     // 0x0201 rain, 0.1 mm, accumulated
		uint16(luxes / 120), // 0x0202 radiation, W/m2 (daylight: 120 lm/W)
	}
}

// tenths returns x in tenths as a register holds it; negative numbers in two's
// complement.
func tenths(x float64) uint16 { return uint16(int16(int(math.Round(x * 10)))) }

// beaufort returns the wind force by the lower bounds in m/s of the WMO's scale.
func beaufort(windMS float64) uint16 {
	var force uint16
	for _, from := range []float64{0.3, 1.6, 3.4, 5.5, 8.0, 10.8, 13.9, 17.2, 20.8, 24.5, 28.5, 32.7} {
		if windMS >= from {
			force++
		}
	}
	return force
}
