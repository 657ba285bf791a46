// Package broker takes telemetry in over MQTT and hands warnings out over it.
//
// It speaks MQTT 3.1, 3.1.1 and 5 through mochi-mqtt. Messages on telemetry
// topics become Readings and go to a [telemetry.Intake]; everything else is
// ordinary MQTT between clients.
//
// # Topics
//
//	telemetry/{device}/{kind}   a JSON object, or an array of objects
//	influx/{device}             InfluxDB line protocol, many lines
//	senml/{device}              SenML in JSON or CBOR, see package senml
//	spBv1.0/{group}/...         Sparkplug B, see package sparkplug; no commands
//	(mapped topics)             as Config.Topics and the mappings say, see package mapping
//	commands/{account}/#        for a device, which alone may read it
//	warnings/#, $SYS/#          written by this program alone, as are spBv1.0/STATE/{host}
//	                            and STATE/{host} of its own name as a Sparkplug host
//
// A client that publishes there is refused: in MQTT 5 with reason 0x87; before,
// the connection ends for a topic under warnings, and a publish on $SYS is
// acknowledged and does nothing.
//
// Any payload may be packed with gzip; it unpacks to at most 256 KiB.
//
// A JSON object holds values by name: a number, true (1) or false (0), a
// string (a word), or null (absent, as is an empty string). `time` is RFC 3339
// or a Unix time whose unit shows in its size; `quality` is a word of
// [telemetry.Quality], or an object with such words by value name. `device`
// may be repeated when it is the device of the topic. In line protocol the
// measurement is the kind; tag `device` may only repeat the device of the
// topic, tag `site` and field `delay_s` are what a gateway writes and are taken
// or passed over; string field `x_text` is the word x, `quality` and
// `x_quality` are qualities.
//
// # When a message is acknowledged
//
// QoS 1 and 2 are acknowledged when the intake says that the readings are on
// disk: QoS 1 without waiting, in the order of receipt, in batches; QoS 2 one
// at a time. A client has at most 256 messages pending and all clients
// together 32 MiB; beyond that its socket is not read. Pending
// acknowledgements belong to the connection.
//
// What cannot be used is set aside with the reason, counted and acknowledged,
// or a client of MQTT 3.1.1 would send it for ever. In a message of several
// readings the good ones are taken and each bad one is set aside, unless the
// JSON itself is broken.
//
// When the intake refuses (the log is full), that message and all later ones
// of the connection stay unacknowledged and the connection is closed after a
// pause, in MQTT 5 with reason 0x97: a PUBACK with an error would make an
// MQTT 5 client forget the message, and MQTT clients send again only after
// they connect again [MQTT-4.4.0-1].
//
// Telemetry is forwarded to subscribers once it is on disk, when there are
// any. What a subscriber is owed waits in the queue of its session, while it reads
// slowly and while it is away; what does not fit is dropped and counted for its
// account. Telemetry is never retained, whatever its retain flag says: the last values are in the
// log and in InfluxDB. A retained telemetry message without payload is
// acknowledged and means nothing.
//
// # Who may
//
// A client is an account of [Accounts], by name and secret, or by the certificate
// that a TLS listener has verified; while there are none, everybody is anyone and
// the listeners stay on loopback. Accounts publish and subscribe where they may
// (telemetry.Account), and speak for their own devices: readings of others are set
// aside. A session belongs to the account: the client id of another account is
// another id. What an account began ends when it is removed or changed. Limits
// hold per account and in all ([Limits]); BEHAVIOUR.md lists them, with their
// reason codes and their tests.
//
// # What survives
//
// Sessions, queues and retained messages live in memory and end with the
// process.
//
// # Links
//
// A Sparkplug node says itself what is connected: births and deaths, its will
// among them. Of a mapped topic whose payloads name the device no link is known.
// Else the first message of a connection for a device says that the device is
// connected, the end of the last connection that carried it says that it is
// not: readings of kind link. No such reading is made when the broker itself
// stops.
package broker
