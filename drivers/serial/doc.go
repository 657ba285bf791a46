// Package serial reads line instruments: NMEA 0183, Vaisala's weather
// transmitters, SDI-12 sensors behind a bridge, and whatever sends lines of
// numbers. One Config is one line; package link opens it, over serial:// or, by
// a serial device server, over tcp://.
//
//	serial:
//	  - {name: mast, connect: "serial:///dev/ttyS1?baud=19200", device: tt-hue, format: vaisala-wxt, poll: "0R0!\r\n"}
//	  - {name: buoy, connect: "serial:///dev/ttyUSB0?baud=4800", device: thuan-an-buoy, format: nmea, interval: 10s}
//	  - name: sonic
//	    connect: "serial:///dev/serial/by-id/usb-0403?baud=9600"
//	    device: bo-bridge
//	    format: pattern
//	    terminator: "\r"
//	    interval: 1m
//	    match: '^R(?P<range>\d{4})$'            # MaxBotix: R1234, mm down to the water
//	    values: [{from: range, to: river.level_m, unit: mm, scale: -1, offset: 7.42, missing: ["9999"]}]
//	  - name: wells
//	    connect: "serial:///dev/ttyUSB1?baud=9600"
//	    format: sdi-12
//	    interval: 10m
//	    sensors:
//	      - {address: 0, device: well-1, values: [{from: 1, to: river.level_m}, {from: 2, to: river.water_temperature_c}]}
//
// # Polled and free-running
//
// With poll the text is sent at every interval, and every line that comes is
// read, so that an answer may have several lines. Without it the instrument
// sends of its own; with an interval its lines are gathered and become one
// reading of each kind with the newest values, without one every line is a
// reading. A gust between two readings is then only seen where the instrument
// itself reports gusts.
//
// # Formats
//
// nmea reads MDA MWD MWV MTA (weather), MTW DBT DBS DPT (sea), RMC GGA GLL GNS VTG
// HDT THS HDG ROT (position) and XDR. Of XDR it knows common names of
// transducers; others are named in values, by name or type and name (from: "C:0"
// is Vaisala's air temperature). MWV's angle counts as direction unless vessel is
// set. Sentences of other types are counted and left alone; AIS has a source of
// its own. The time of RMC is taken when it is within 10 minutes of ours. No fix
// gives no position; estimated, simulated and hand-set ones are suspect.
//
// vaisala-wxt reads aR0 to aR5 in whatever units the transmitter is set to, and
// the CRC of ar0 to ar5. What is marked # gives no value; of a line that was cut
// the whole parameters do. Use the commands with a CRC where the line is long.
//
// sdi-12 asks each sensor in turn: measure, wait for the service request or the
// time that the sensor asks for, fetch the values by D0 to D9 until there are as
// many as were promised. A failure is tried three times. Those measured by C
// commands measure at the same time. After an answer that did not come or was
// wrong, the line must be silent for a whole timeout before the next command, so
// that a late answer is never taken for another's; a measurement with fewer
// values than promised gives none. A sensor that is dead costs six timeouts in
// each interval: choose them so that the others have their time.
//
// pattern takes the groups of a regular expression, or columns. A number goes
// through the unit first and then through scale and offset. Such lines have no
// checksum, and a part of one may read as another number: what is being sent when
// the line is opened, up to the first end of a line, is left out unless it was
// asked for by poll, and so is a last line without its end.
//
// # What is refused
//
// A wrong checksum, a line that is not of the format and one over 4 KiB are
// counted by result, and one of each a minute is set aside. A field that is
// damaged, invalid by the instrument's own word or in an unknown unit is counted
// by reason and takes nothing else with it. An empty field is no value, never 0.
//
// # Links
//
// The line (the source's name) is up while it is open. An instrument is up from
// its first right line on, and down after the time of silence, or, behind a
// bridge, when a measurement failed three times.
package serial
