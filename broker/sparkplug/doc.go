// Package sparkplug reads Sparkplug B messages (Eclipse Sparkplug 3.0.0) as
// Readings and keeps what that takes: which edge nodes are alive, the aliases that
// their births gave, and the order of their messages.
//
// # Topics
//
// spBv1.0/{group}/{NBIRTH|NDATA|NDEATH}/{edge} and .../{DBIRTH|DDATA|DDEATH}/
// {edge}/{device} are read; commands are others' business. Which device of ours a
// node or a device is, [Config] says. With Config.Host this program is a host
// application that nodes may name as their primary host: [Config.State] is what it
// says of itself.
//
// # Metrics
//
// A metric a/b/level_m is the value level_m of the kind a.b, one without a / is of
// the kind Config.Kind; characters that no name can have become one _. Numbers,
// booleans, date-times (as Unix ms) and strings are values; a null is absent; its
// property Quality (192 good, 500 stale) is its quality. Node Control, Device
// Control and bdSeq are not values, nor are transient metrics, which no historian
// may store. An instance of a template is a folder of its metrics: flow_m3h of the
// instance Pumps/1 is the value flow_m3h of the kind Pumps.1; definitions of
// templates are passed over and counted. Data sets, arrays, bytes and files are set
// aside.
// Historical metrics are readings like others: their time says what they are.
//
// # Births, deaths and gaps
//
// A birth is link up and the values that it carries; a death is link down, of a
// node for all its devices too, unless the bdSeq of the death is not that of the
// birth (it is the will of an earlier session, 6.4.7 and tck-id-payloads-ndeath).
// A message out of sequence, one before its birth, and an alias that no birth gave
// ask the node for a rebirth, at most once in [RebirthPause], then less and less
// often. Until it comes metrics that have only an alias are set aside, because the
// aliases may be others: a retry of those letters after the birth reads them.
package sparkplug
