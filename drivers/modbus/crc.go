package modbus

// crc16 is the checksum of an RTU frame (MODBUS over serial line V1.02, 6.2.2:
// polynomial 0xA001, start 0xFFFF). Over a frame with its own checksum, low byte
// first, it is 0.
func crc16(frame []byte) uint16 {
	crc := uint16(0xFFFF)
	for _, b := range frame {
		crc = crc>>8 ^ crcTable[byte(crc)^b]
	}
	return crc
}

var crcTable = func() (table [256]uint16) {
	for i := range table {
		crc := uint16(i)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0xA001
			} else {
				crc >>= 1
			}
		}
		table[i] = crc
	}
	return table
}()
