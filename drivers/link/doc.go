// Package link opens a line of bytes: a serial port, a TCP connection that we
// make, a TCP listener that others connect to, a UDP socket that others send to,
// or a file. It knows nothing of what the bytes say.
//
// A link is written as a URL:
//
//	serial:///dev/name  a serial port, with parameters as below
//	tcp://host:port     connect to host:port
//	listen://host:port  accept up to Options.MaxPeers connections; default host 127.0.0.1
//	udp://host:port     take datagrams; default host 127.0.0.1
//	file:///path        read the file once; gzip is recognised by its first bytes
//
// Open gives lines of text of any of them; Dial (serial, tcp) and Bind (listen)
// give raw bytes, both ways.
//
// Everything is bounded: a line (Options.MaxLine), the talkers at one time
// (Options.MaxPeers), the time to connect and, where wanted, the time between
// two reads. A link does not retry: it returns its error, and who runs it
// decides when to open it again.
//
// # Serial lines
//
// Parameters of serial:// are written as in
// serial:///dev/ttyUSB0?baud=9600&parity=E:
//
//	baud        50..12000000, any number that the device can do; default 9600
//	data        data bits, 5..8; default 8
//	parity      N, O, E, M (mark) or S (space); default N
//	stop        stop bits, 1 or 2; default 1
//	flow        none, rtscts or xonxoff; default none
//	rs485       on: the driver raises RTS while it sends (Linux TIOCSRS485). Most USB
//	            adapters turn round by themselves and do not want it
//	rts_before, rts_after  0s..1s in whole ms: how long before and after, with rs485
//	rts_active  high or low; default high; with rs485
//
// A device is opened for one program: a second one is refused, whether it asks
// by flock, as picocom and pyserial do, or not at all. What the device cannot do
// (a speed more than 3 % off, a parity) is an error at once. With parity,
// characters that fail the check are dropped. Name adapters by
// /dev/serial/by-id/..., which stays the same when they are plugged in again;
// ttyUSB0 may come back as ttyUSB1.
//
// An unplugged device ends a read under way, also an idle one, with an error; so
// does opening a device that is missing. Both errors have a method
//
//	Wait(ctx context.Context) error
//
// that returns nil within 250 ms of the device's return, so that who runs the
// line can end his pause early.
//
// Ports are opened by github.com/tarm/serial and set further by termios2 (any
// speed, mark and space parity); waiting is done in Go's poller and not in the
// port, so that deadlines are exact, a silent line costs no processor time, and
// Close ends a read. Linux only.
package link
