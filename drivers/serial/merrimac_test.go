package serial

// merrimacCounts and merrimacSums were computed from the log by another program,
// which checks the checksums and splits the sentences by commas itself.
var merrimacCounts = map[string]int{
	"position.heading_deg": 1375, "position.lat": 426, "position.lon": 426, "position.speed_kn": 284,
	"position.course_deg": 284, "position.altitude_m": 142,
	"weather.wind_direction_deg": 423, "weather.wind_speed_ms": 423,
	"sea.depth_transducer_m": 284, "sea.depth_m": 142, "sea.sea_temperature_c": 142,
}

var merrimacSums = map[string]float64{
	"position.heading_deg": 250896.4, "position.lat": 22654.7759, "position.lon": 2312.499065, "position.speed_kn": 14.3,
	"position.course_deg": 0, "position.altitude_m": 397,
	"weather.wind_direction_deg": 102899, "weather.wind_speed_ms": 963.729,
	"sea.depth_transducer_m": 142.8, "sea.depth_m": 142.4, "sea.sea_temperature_c": 1787.8,
}

// merrimacVerdicts: the 141 XDR sentences of the log have a field too many at
// their beginning; AIS and navigation sentences are not ours.
var merrimacVerdicts = map[string]int{"used": 2792, "unused": 3391, "malformed": 141, "bad_checksum": 0, "too_long": 0}
