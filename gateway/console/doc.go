// Package console is the JSON API of the gateway and the operators' page.
//
// # Contract
//
//	GET  /                                   for people: warnings that are not cleared, the map
//	GET  /rules/edit/{rule} /rules/new /rules/history /rules/history/{n}
//	GET  /warnings/{id} /devices /devices/{id} /rules /health /drill /keys /login    for people
//	     ?lang=vi|en                         remembered in a cookie
//	GET  /?kiosk=yes                         the same for a wall: large, nothing to click, shown in turn
//	GET  /api/v1/trends                      {"trends":{id:{"points":[[unix_s,mean],...],"threshold":3.5}}}
//	     of the gravest 24 warnings over three hours, at most 20 s old
//	GET  /api/v1/session                     {"account":"Lan","role":"operator","operate":true,...}: who asks
//	POST /api/v1/session                     the same; somebody is at the page
//	POST /login                              a form of user, password, to; with Accept: application/json
//	     the answer is that of /api/v1/session
//	GET  /api/v1/map                         {"devices":[...]}: place, heading, severity, silence of each
//	GET  /api/v1/zones                       areas and lines as GeoJSON
//	GET  /api/v1/warnings                    {"warnings":[...]}, not cleared ones
//	     ?state=all|pending|active|acknowledged|shelved|returned|out-of-service|cleared
//	     ?device= ?rule=                     exactly this one
//	     ?severity=                          at least this grave
//	GET  /api/v1/warnings/{id}               one warning
//	GET  /api/v1/warnings/{id}/history       {"transitions":[...]}, each with the operator's act that brought it
//	POST /api/v1/warnings/{id}/ack           {"n":3,"by":"Lan","text":"..."}
//	POST /api/v1/warnings/{id}/shelve        {"n":3,"by":"Lan","until":"2025-10-27T18:00:00+07:00"}
//	POST /api/v1/warnings/{id}/unshelve      {"n":4,"by":"Lan"}
//	POST /api/v1/warnings/{id}/comment       {"n":5,"by":"Lan","text":"..."}
//	POST /api/v1/warnings/{id}/assign        {"n":5,"by":"Lan","to":"Chi cục Thủy lợi","text":"..."}
//	POST /api/v1/warnings/{id}/false-alarm   {"n":6,"by":"Lan","text":"..."}; genuine takes it back
//	GET  /api/v1/warnings/{id}/deliveries    {"deliveries":[...]}: each attempt to tell a recipient, and its answer
//	GET  /api/v1/warnings/{id}/route         {"routes":[...],...}: who is told of it, and why
//	GET  /api/v1/route ?device= ?rule= ?kind= ?severity= ?at=
//	     the same of a warning that might be raised
//	GET  /api/v1/reports ?from= ?to= ?by=day|month|station|rule
//	     {"reports":[...]}: raised, acknowledged, time to that, false alarms
//	GET  /api/v1/out-of-service              {"orders":[...],"withheld":[...]}: out of service, and by design
//	POST /api/v1/out-of-service              {"out":true,"device":"kim-long","n":0,"by":"Lan","why":"...","until":"..."}
//	     device, rule, or both; n is that of the order that was seen, 0 for none;
//	     "out":false puts back
//	GET  /api/v1/drill                       {"drill":...}: the exercise that runs, or null
//	POST /api/v1/drill                       {"do":"start","scenario":"...","by":"Lan","why":"..."}, or "end"
//	     instead of the scenario's text: "file" and "name" of one of those below, or
//	     "device", "severity" and "text" of one warning; "last":"10m" how long it takes
//	GET  /api/v1/drill/scenarios             {"scenarios":[{"file","name","devices"},...]}: what can be played here
//	POST /api/v1/recipients/{name}/test      {"by":"Lan","why":"..."}; {"answer":"204 No Content","seconds":0.02}
//	     502 when it did not come through
//	GET  /api/v1/audit ?from= ?to= ?by= ?do= ?on= ?limit=200
//	     {"audit":[{"at","by","do","on","why","changes"},...]}: who changed what, the newest
//	     first; do may be a group, as drill. For administrators.
//	GET  /api/v1/devices ?site= ?owner=      {"devices":[...]}, what is wrong first
//	GET  /api/v1/devices/{id}                one device
//	POST /api/v1/devices/{id}/state          {"state":"maintenance","for":"2h","by":"Lan","why":"..."}
//	     measuring, maintenance or calibrating; "value":"level_m" for one of its values
//	POST /api/v1/devices/{id}/admission      {"do":"approve","name":"...","interval":"10m","by":"Lan","why":"..."}
//	     of a device that came by itself: approve registers it and takes in what was
//	     held of it, refuse keeps it out, reconsider lets it wait again
//	PATCH /api/v1/devices/{id}               {"facts":{"alarm2_m":2.1},"by":"Lan","why":"..."}
//	     name, owner, interval, lat, lon, facts; null puts back what devices.yaml says
//	GET  /api/v1/devices/{id}/series ?kind= &value= &from= &to= &points=600
//	     {"points":[[unix_s,mean,min,max],...]}, at most 2000 of them over 400 days
//	GET  /api/v1/devices/{id}/changes        {"changes":[...]}, who, when and why
//	GET  /api/v1/rules                       {"rules":[...]}
//	GET  /api/v1/rules/document              {"document":{...}}: what they run on, in force now
//	GET  /api/v1/rules/files                 {"version":7,"rule_files":[...]}: the version in force
//	GET  /api/v1/rules/file ?name= ?version= one with its text; its ETag is the version
//	PUT  /api/v1/rules/file ?name=           {"text":"...","by":"Lan","why":"..."} with If-Match: "7"
//	     "rule" with "shadow" or "disabled" marks that rule
//	PATCH /api/v1/rules/{rule}               {"shadow":true,"by":"Lan","why":"..."} with If-Match, or disabled
//	GET  /api/v1/rules/history ?name= &limit=100   {"versions":[...]}, the newest first
//	GET  /api/v1/rules/history/{n}           one, with the lines that it changed
//	POST /api/v1/rules/revert                {"to":6,"by":"Lan","why":"..."} with If-Match; 0: the configuration
//	GET  /api/v1/rules/words                 {"words":{...}}: what may stand in a rule file
//	POST /api/v1/rules/check                 {"file":"...","text":"..."}: findings with line, column, suggestion
//	POST /api/v1/rules/try                   and "rule": true, false or missing for each device, with the values
//	POST /api/v1/rules/backtest              and "device","from","to": lines of JSON, {"share":0.4} and at last
//	     {"report":...} or {"error":...}; one at a time of a session, at most 2 min
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
// answer is 409, carries the n of now and names who did what meanwhile. If-Match
// is the same for rules: 412 when somebody was faster, 428 when it is missing, 422
// with faults for a text that cannot be in force. by is the
// account's name where there are accounts, whatever the body says.
//
// Everything that goes wrong is answered with application/problem+json (RFC
// 9457): type, title, status, detail, and field where one is at fault. detail is in
// English; with Accept-Language: vi and no other language, as the page asks, what an
// operator can meet is told in Vietnamese. Unknown
// paths are 404, wrong methods 405 with Allow, unknown query parameters 400,
// bodies over 64 KiB (those with a rule file: 600 KiB) 413.
//
// # Events
//
// /api/v1/events sends one event named warning, with the warning as its JSON,
// for each transition. A comment every 15 s keeps the connection alive. The id
// of an event is good for the header Last-Event-ID of the next connection: what
// was missed is sent first. Where that is not possible any more (the gateway was
// restarted, or more than 768 events were missed) an event named resync
// says that /api/v1/warnings is to be read again. At most 256 connections are
// served; one that does not keep up is ended and may come back.
//
// # Who may
//
// Without accounts everybody may do everything; so the console listens on
// loopback only, checks the Host header against DNS rebinding (a proxy in front
// of it sends Host: localhost), and refuses changes from other origins.
//
// With accounts (Guard) every request but /healthz, /readyz, /login and /assets says who
// sends it, by Basic or with a token as Bearer: reading needs the right to read,
// acts on warnings and states of devices that to operate, rules that to rule, and
// all else that to administer. The name of who acts is then that of the account,
// whatever the body says. 401 is for who is not known, 403 for who may not, 429
// and Retry-After for an address with too many wrong passwords.
//
// A person logs in at /login and gets a session: a cookie of 128 random bits that
// scripts cannot read and other sites cannot send along with a change
// (HttpOnly, SameSite=Lax, Secure over TLS; changes of another origin are
// refused by http.CrossOriginProtection). It ends after 12 hours, after 30 days
// where the account can only look, after an hour without a key, a click or a change
// where it may act (Config.Session), with /logout, with a change of the account and
// with the gateway; streams of events end with it. What a page asks for by itself
// has the header Haidang-Page and does not count as somebody at it. The page that is
// open then says so over everything, keeps what was typed, and takes the login in
// its place. At most 1000 are kept, in memory, by their hashes.
//
// A listener that was given with Attach (the socket in the data folder) serves
// the same paths to whoever can reach it, with an administrator's rights.
package console
