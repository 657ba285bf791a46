// Package mapping turns messages of foreign devices into Readings: topics that
// are laid out in another way, JSON that nests, bare numbers, and line protocol
// whose tags are a part of what is observed.
//
// A [Mapping] is written in YAML, see docs/payloads/mapping.md, or is one of the
// built-in ones ([Builtin]). [Compile] makes a [Set] of them; [Set.Match] finds
// the one for a topic, the first that fits, and [Route.Decode] reads a payload.
// Both are functions of their arguments: no I/O, and the time is never asked.
//
// # Topics
//
// A topic is a filter whose levels may be named: {device} is any one level and
// gives it the name device, + is any one level, # at the end is all that
// follows. Topics of which the broker itself knows the meaning (telemetry,
// influx, senml, spBv1.0, warnings, $SYS) are never mapped.
//
// # Paths and templates
//
// A path is one of github.com/tidwall/gjson within the payload: a.b, list.0.x,
// list.#(id=="t").value. Within `each` it begins at the element; $.a begins at
// the whole payload, $ is the whole payload and @ the element.
//
// A template is a word with parts in braces: the name of a level of the topic,
// key (of the element of `each`), $.a and @.a (paths), in line protocol
// measurement and tag.x. Each may have a filter behind a bar: slug makes a valid
// name of it (runs of other characters become one -), lower and upper.
//
// # What is set aside
//
// A part of a payload that gives no value is passed over; a payload of which
// every part is passed over is set aside, with what was looked for. A value that
// is there and cannot be used (a word that `words` does not list, an object) is
// set aside with its reason and the others of its reading are taken.
package mapping
