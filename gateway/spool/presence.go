package spool

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// presencePrefix is before the role and the name of a machine in its lease.
const presencePrefix = "machine."

// Present puts down, for as long as a lease lives, that a machine is there which
// takes parts of a role, though it may have none: machines share them fairly by that.
// Nothing is kept out by it. It fails before the first Open of the log.
func (r *Roster) Present(ctx context.Context, role, gateway string) error {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	host, _ := os.Hostname() // for people
	text, err := json.Marshal(Holder{Instance: r.instance, Gateway: gateway, Host: host, PID: os.Getpid(), Since: r.since})
	if err != nil {
		return err
	}
	subject := ownerPrefix + presencePrefix + role + "." + strings.ToLower(r.instance[:8])
	if _, err := r.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: text}, jetstream.WithMsgTTL(leaseLife)); err != nil {
		return fmt.Errorf("put down that this machine is there: %w", r.fault(err))
	}
	return nil
}

// Machines counts, among the holders, the machines that are there for a role; see
// Present.
func Machines(held map[string]Holder, role string) (n int) {
	for lease := range held {
		if strings.HasPrefix(lease, presencePrefix+role+".") {
			n++
		}
	}
	return n
}
