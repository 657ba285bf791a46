// Package ioc takes warnings out of the gateway, to the operations centre
// (IOC) and to everyone else who asked for them. There is one file per
// protocol: webhook.go, cap.go, mqtt.go (the gateway's own broker), remote.go
// (another broker), smtp.go, sms.go with modem.go and pdu.go, alertmanager.go,
// siren.go and influx.go; trial.go tries them. Package cap below this one writes CAP messages and
// their feed.
//
// # Contract
//
// A Recipient is told every transition that is addressed to it, at least once,
// until it accepts it. It has one Sender for each Class, and each Sender is one
// follower of the warnings log with a durable position of its own, so that
// neither another recipient nor a backlog of lesser warnings stands in the way
// of a grave one. The key id/n names one transition of one warning; n grows by
// one with each transition and tells what is newer.
//
//   - Within a class the transitions of one device are delivered in the order
//     of the log; several devices are served at the same time. A warning that the
//     recipient alone refuses holds back no others: those of its device go on, and
//     what came behind its batch and lasts is tried, out of its turn, every minute.
//   - The classes of a recipient share what was delivered. A transition that is
//     older than one already delivered of the same warning is skipped and
//     counted as superseded; one that was delivered already is a duplicate.
//     This memory is bounded and does not outlive the process: after a restart
//     a recipient can see a key again or an older n, and drops it.
//   - Transitions in state pending, or of a rule in shadow, are never sent.
//   - A warning that the recipient alone refuses (400, 413, 415 or 422, while it
//     accepts others) is set aside after GiveUpAttempts and GiveUpAfter, because
//     otherwise it would hold back all that follow; so is one of which some
//     numbers or addresses put off what others have taken. When everything that is
//     tried is refused, nothing is given up, but a single one that is tried alone:
//     only what follows it can show whether the recipient takes others.
//   - A failure holds back all attempts at the recipient for a while that
//     doubles up to DefaultMaxPause, less up to a half by chance. After BreakAfter
//     failures in a row the circuit is broken: one attempt at a time probes
//     whether it answers again.
//   - A recipient that takes text (smtp, sms) is told what changes the danger: a
//     warning is raised, its severity changes, it is over. It is not told what
//     operators do, but it is told again when nobody acknowledges and the routes
//     say so: such a text begins with CHƯA AI NHẬN and NOT ACKNOWLEDGED.
//   - More than DefaultMoreThan messages within DefaultWithin are a storm: what
//     comes then is told to smtp, sms and a webhook that asks for it in one message
//     for each river or area, the gravest first. Rate bounds messages of any
//     recipient; what waits is told as it stands by then, what it passed through is
//     counted. Threads and bounds go on over a restart (Resume).
//   - Try sends a test, past all that: see there.
//   - What is of a drill (Warning.Exercise) begins with DIỄN TẬP and EXERCISE, has
//     the CAP status Exercise and the Alertmanager label exercise="true"; it
//     sounds no siren and is not in the feed, unless that is asked for.
//
// # Webhook
//
// What leaves is telemetry.Warning as JSON, the same object on the webhook, on
// MQTT and in the API: one POST per transition with Content-Type
// application/json and the headers
//
//	Idempotency-Key: kim-long-flood-3f9a2c1b/2
//	User-Agent: haidang/1.0
//	X-Haidang-Signature: t=1761546600,v1=5257a8...
//	Authorization: Bearer ... (with token)
//
// The signature is there when a secret is configured. v1 is the HMAC-SHA256,
// in lower-case hexadecimal and keyed with the secret, of the decimal Unix time
// t, a full stop and the body as it was sent. A receiver computes the same,
// compares in constant time, and refuses a t that is more than some minutes
// away from its own clock, so that a recorded request cannot be played again.
//
// A webhook with digests gets, in a storm,
//
//	{"digest": "digest-91c2...", "earlier": ["digest-0a3f..."], "region": {"vi": ..., "en": ...}, "warnings": [...]}
//
// under the Idempotency-Key of the digest: the newest transition of each warning,
// the gravest first; earlier names the digests of the same storm and region.
//
// Any 2xx status accepts, whatever the body holds and however long it takes.
// Redirects are not followed: a warning goes where the configuration says.
package ioc
