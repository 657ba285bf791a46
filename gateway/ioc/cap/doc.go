// Package cap says warnings in the Common Alerting Protocol, version 1.2
// (OASIS, 1 July 2010): the messages, the chain in which they follow one
// another, and the Atom feed that public applications poll.
//
// # Which messages there are
//
// A warning is one incident. Its messages are a function of the warnings log
// alone, so that after a restart they have the same identifiers, times and
// references:
//
//   - Alert when it is raised,
//   - Update when its severity changes, up or down, and every RefreshEvery
//     while it lasts, because a message says itself that it Expires,
//   - Cancel when it is over.
//
// What operators do (acknowledge, shelve, comment) is no message: it says
// nothing about the danger. Only when they say that there was none, by marking
// a false alarm or taking the device out of service, that is a Cancel. A warning
// that returns after its Cancel begins a new chain with an Alert.
//
// The identifier is <id>.<n> of the transition, with .r<i> added for the i-th
// refresh of it. Update and Cancel refer to every earlier message since the
// Alert, the oldest first.
//
// # What a message says
//
// There is one info block for each language, vi-VN first, then en-US. Category,
// event, response, urgency, certainty and instruction come from Events: those of
// the configuration first, then built-in ones, by rule, kind and severity. The
// area is the device's: the zone that its fact "zone" or "commune" names as a
// polygon, a circle around its position, and geocodes from its facts.
//
// The status is Exercise for a warning of a drill. It is Test for everything
// until the configuration names a sender: nobody should act on the messages of
// a gateway that nobody has set up.
package cap
