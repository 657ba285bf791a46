package main

import (
	"time"

	"haidang/gateway/ioc"
)

// pastFor says what has become of warnings, for a recipient: the log knows when one was
// raised or rose, the record of deliveries what the recipient was told of it.
func (g *instance) pastFor(recipient string) ioc.Past {
	return func(id string) (news int, at time.Time, told int) {
		told = g.proof.Accepted(id, recipient)
		if t, ok := g.centre.Transition(id); ok && t.Chase != nil {
			news, at = t.Chase.N, t.Chase.At
		}
		return news, at, told
	}
}
