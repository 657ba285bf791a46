// Package certificate keeps the certificates that listeners present: it reads
// them from PEM files, again when the files change, and makes some for a first
// trial.
//
// What it serves is TLS 1.2 and 1.3 (RFC 8446) with Go's choice of suites and
// curves, all of them with forward secrecy. A file that changes is noticed by
// the first handshake two seconds later at the latest; when the new ones cannot be used
// the ones of before stay, which is logged and counted. Connections that stand
// are not touched. Tickets of earlier sessions stay good over a change of the
// server's certificate, and end with a change of the certificates of clients.
//
// With a file of authorities clients may present a certificate, or have to; a
// certificate that no authority has signed ends the handshake. Who a certificate
// is, accounts say.
package certificate
