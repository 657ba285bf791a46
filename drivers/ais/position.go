package ais

// A position is a report of types 1, 2, 3 or 18 as sent: whole numbers in the
// units of ITU-R M.1371-5, Annex 8, 3.1 and 3.16.
type position struct {
	status   uint8 // navigational status; of type 18 always not available
	turn     int8  // rate of turn, code; types 1 to 3
	accuracy bool
	raim     bool
	speed    uint16 // 1/10 knot; 1023 not available
	course   uint16 // 1/10 degree; 3600 not available
	heading  uint16 // degrees; 511 not available
	second   uint8  // of UTC; 60 to 63 are codes
	maneuver uint8  // types 1 to 3
	lon, lat int32  // 1/10000 minute; 181 and 91 degrees not available
	radio    uint32
}

// readClassA reads types 1, 2 and 3.
func (p *position) readClassA(b *bits) {
	w := b.get(38, 22) // status 4, turn 8, speed 10
	*p = position{
		status:   uint8(w >> 18),
		turn:     int8(w >> 10),
		speed:    uint16(w & 1023),
		accuracy: b.flag(60),
		lon:      int32(b.signed(61, 28)),
		lat:      int32(b.signed(89, 27)),
	}
	w = b.get(116, 33) // course 12, heading 9, second 6, maneuver 2, spare 3, raim 1
	p.course = uint16(w >> 21)
	p.heading = uint16(w >> 12 & 511)
	p.second = uint8(w >> 6 & 63)
	p.maneuver = uint8(w >> 4 & 3)
	p.raim = w&1 == 1
	p.radio = uint32(b.get(149, max(0, min(19, b.n-149))))
}

// readClassB reads type 18.
func (p *position) readClassB(b *bits) {
	*p = position{
		status:   statusNone,
		speed:    uint16(b.get(46, 10)),
		accuracy: b.flag(56),
		lon:      int32(b.signed(57, 28)),
		lat:      int32(b.signed(85, 27)),
	}
	w := b.get(112, 27) // course 12, heading 9, second 6
	p.course = uint16(w >> 15)
	p.heading = uint16(w >> 6 & 511)
	p.second = uint8(w & 63)
	p.raim = b.flag(147)
	p.radio = uint32(b.get(148, 20))
}
