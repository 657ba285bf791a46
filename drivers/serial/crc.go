package serial

// crcLen is how many characters the CRC takes.
const crcLen = 3

// crcOf returns the CRC of SDI-12 (V1.4, 4.4.12): 16 bits with the polynomial
// 0xA001, reflected, from 0, as three characters from 0x40 on. Vaisala's ASCII
// messages have the same.
func crcOf(b []byte) [crcLen]byte {
	var crc uint16
	for _, c := range b {
		crc ^= uint16(c)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0xA001
			} else {
				crc >>= 1
			}
		}
	}
	return [crcLen]byte{0x40 | byte(crc>>12), 0x40 | byte(crc>>6&0x3F), 0x40 | byte(crc&0x3F)}
}

// checkCRC returns what stands before a right CRC.
func checkCRC(line []byte) ([]byte, bool) {
	n := len(line) - crcLen
	if n < 1 || crcOf(line[:n]) != [crcLen]byte(line[n:]) {
		return nil, false
	}
	return line[:n], true
}
