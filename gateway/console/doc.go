// Package console is the JSON API of the gateway and the operators' page.
//
// # Contract
//
//	GET  /                                   warnings that are not cleared, for people
//	GET  /api/v1/warnings                    {"warnings":[...]}, not cleared ones
//	     ?state=all|pending|active|acknowledged|shelved|cleared
//	     ?device= ?rule=                     exactly this one
//	     ?severity=                          at least this grave
//	GET  /api/v1/warnings/{id}               one warning
//	GET  /api/v1/warnings/{id}/history       {"transitions":[...]}, each with the operator's act that brought it
//	POST /api/v1/warnings/{id}/ack           {"n":3,"by":"Lan","text":"..."}
//	POST /api/v1/warnings/{id}/shelve        {"n":3,"by":"Lan","until":"2025-10-27T18:00:00+07:00"}
//	POST /api/v1/warnings/{id}/unshelve      {"n":4,"by":"Lan"}
//	POST /api/v1/warnings/{id}/comment       {"n":5,"by":"Lan","text":"..."}
//	GET  /api/v1/devices ?site= ?owner=      {"devices":[...]}, what is wrong first
//	GET  /api/v1/devices/{id}                one device
//	POST /api/v1/devices/{id}/state          {"state":"maintenance","for":"2h","by":"Lan","why":"..."}
//	     measuring, maintenance or calibrating; "value":"level_m" for one of its values
//	PATCH /api/v1/devices/{id}               {"facts":{"alarm2_m":2.1},"by":"Lan","why":"..."}
//	     name, owner, interval, lat, lon, facts; null puts back what devices.yaml says
//	GET  /api/v1/devices/{id}/changes        {"changes":[...]}, who, when and why
//	GET  /api/v1/rules                       {"rules":[...]}
//	GET  /api/v1/rules/document              {"document":{...}}: what they run on, in force now
//	GET  /api/v1/deadletters                 {"deadletters":[...]}, the newest ?limit=100
//	     ?device= ?reason= ?state=all        exactly this; those too that are settled
//	GET  /api/v1/deadletters/{id}            one of them
//	POST /api/v1/deadletters/{id}/retry      {"by":"Lan"}
//	POST /api/v1/deadletters/{id}/drop       {"by":"Lan"}
//	GET  /api/v1/events                      server-sent events, see below
//	GET  /healthz                            200 while the program lives
//	GET  /readyz                             200, or 503 and what is not ready
//	GET  /metrics                            for Prometheus
//
// n is the transition that the operator saw. When the warning has moved on the
// answer is 409 and carries the n of now.
//
// Everything that goes wrong is answered with application/problem+json (RFC
// 9457): type, title, status, detail, and field where one is at fault. Unknown
// paths are 404, wrong methods 405 with Allow, unknown query parameters 400,
// bodies over 64 KiB 413.
//
// # Events
//
// /api/v1/events sends one event named warning, with the warning as its JSON,
// for each transition. A comment every 15 s keeps the connection alive. The id
// of an event is good for the header Last-Event-ID of the next connection: what
// was missed is sent first. Where that is not possible any more (the gateway was
// restarted, or more than 768 events were missed) an event named resync
// says that /api/v1/warnings is to be read again. At most 64 connections are
// served; one that does not keep up is ended and may come back.
//
// # Who may
//
// There are no accounts yet. So the console listens on loopback only, checks
// the Host header against DNS rebinding, and refuses changes from other
// origins. A proxy in front of it sends Host: localhost.
//
// A listener that was given with Attach (the socket in the data folder) serves
// the same paths to whoever can reach it, with an administrator's rights.
package console
