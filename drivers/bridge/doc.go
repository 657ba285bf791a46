// Package bridge connects the gateway with another MQTT broker: a province's, a
// vendor's cloud, another gateway.
//
// As a source it subscribes there with a session that lasts, and hands what comes
// to the same readers of payloads as the gateway's own broker. A QoS 1 or 2
// message is acknowledged when its readings are on disk and not before: what was
// not is delivered again after the connection, so nothing is lost and some may
// come twice. It does not retry: [Bridge.Run] returns the error, and its session
// waits at the other broker.
//
// As a follower of the readings log it forwards readings, by its own position
// there: [Bridge.Forward] returns when the other broker has acknowledged all. A
// reading that came from a bridge is not sent back over it. While the other broker
// cannot be reached the log keeps what is to be forwarded, up to Forward.Keep,
// after which it is dropped and counted: it would fill the log for the others.
package bridge
