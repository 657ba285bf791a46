package ais

// The codes of ITU-R M.1371-5, Annex 8, in the words of gpsd.

var statuses = [16]string{
	"Under way using engine", "At anchor", "Not under command", "Restricted manoeuverability",
	"Constrained by her draught", "Moored", "Aground", "Engaged in fishing", "Under way sailing",
	"Reserved for HSC", "Reserved for WIG", "Reserved", "Reserved", "Reserved", "Reserved", "Not defined",
}

var fixTypes = [...]string{
	"Undefined", "GPS", "GLONASS", "Combined GPS/GLONASS", "Loran-C", "Chayka",
	"Integrated navigation system", "Surveyed", "Galileo", "INVALID EPFD",
}

var aidTypes = [32]string{
	"Unspecified", "Reference point", "RACON", "Fixed offshore structure", "Spare, Reserved for future use.",
	"Light, without sectors", "Light, with sectors", "Leading Light Front", "Leading Light Rear",
	"Beacon, Cardinal N", "Beacon, Cardinal E", "Beacon, Cardinal S", "Beacon, Cardinal W",
	"Beacon, Port hand", "Beacon, Starboard hand", "Beacon, Preferred Channel port hand",
	"Beacon, Preferred Channel starboard hand", "Beacon, Isolated danger", "Beacon, Safe water",
	"Beacon, Special mark", "Cardinal Mark N", "Cardinal Mark E", "Cardinal Mark S", "Cardinal Mark W",
	"Port hand Mark", "Starboard hand Mark", "Preferred Channel Port hand",
	"Preferred Channel Starboard hand", "Isolated danger", "Safe Water", "Special Mark",
	"Light Vessel / LANBY / Rigs",
}

var stationTypes = [...]string{
	"All types of mobiles", "Reserved for future use", "All types of Class B mobile stations",
	"SAR airborne mobile station", "Aid to Navigation station", "Class B shipborne mobile station",
}

func stationTypeText(t uint8) string {
	switch {
	case int(t) < len(stationTypes):
		return stationTypes[t]
	case t < 10:
		return "Regional use and inland waterways"
	}
	return "Reserved for future use"
}

// shipGroups are the first digits 2, 4 and 6 to 9 of a ship type; the second
// digit says what is on board.
var shipGroups = [10]string{
	2: "Wing in ground (WIG)", 4: "High speed craft (HSC)",
	6: "Passenger", 7: "Cargo", 8: "Tanker", 9: "Other Type",
}

var shipTypes3 = [10]string{
	"Fishing", "Towing", "Towing: length exceeds 200m or breadth exceeds 25m", "Dredging or underwater ops",
	"Diving ops", "Military ops", "Sailing", "Pleasure Craft", "Reserved", "Reserved",
}

var shipTypes5 = [10]string{
	"Pilot Vessel", "Search and Rescue vessel", "Tug", "Port Tender", "Anti-pollution equipment",
	"Law Enforcement", "Spare - Local Vessel", "Spare - Local Vessel", "Medical Transport",
	"Ship according to RR Resolution No. 18",
}

func shipTypeText(t uint8) string {
	switch {
	case t == 0:
		return "Not available"
	case t < 20:
		return "Reserved for future use"
	case t >= 100:
		return "INVALID SHIP TYPE"
	case t/10 == 3:
		return shipTypes3[t%10]
	case t/10 == 5:
		return shipTypes5[t%10]
	}
	group := shipGroups[t/10]
	switch d := t % 10; {
	case d == 0:
		return group + " - all ships of this type"
	case d <= 4:
		return group + " - Hazardous category " + "ABCD"[d-1:d]
	case t == 99:
		return group + " - no additional information"
	case d == 9 && t != 29:
		return group + " - No additional information"
	}
	return group + " - Reserved for future use"
}
