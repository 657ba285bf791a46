// Package link opens a line of bytes and cuts it into lines of text: a TCP
// connection that we make, a TCP listener that others connect to, a UDP socket
// that others send to, or a file. It knows nothing of what the lines say.
//
// A link is written as a URL:
//
//	tcp://host:port     connect to host:port
//	listen://host:port  accept up to Options.MaxPeers connections; default host 127.0.0.1
//	udp://host:port     take datagrams; default host 127.0.0.1
//	file:///path        read the file once; gzip is recognised by its first bytes
//
// Everything is bounded: a line (Options.MaxLine), the talkers at one time
// (Options.MaxPeers), the time to connect and, where wanted, the time between
// two reads. A link does not retry: it returns its error, and who runs it
// decides when to open it again.
package link
