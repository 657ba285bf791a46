package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/term"

	"haidang/gateway/telemetry"
)

// parseLimits reads limits as name=number, separated by commas.
func parseLimits(l *telemetry.Limits, text string) error {
	if text == "" {
		return nil
	}
	numbers := map[string]*int{"connections": &l.Connections, "sessions": &l.Sessions, "messages_per_s": &l.MessagesPerS,
		"inflight": &l.Inflight, "queue": &l.Queue, "subscriptions": &l.Subscriptions, "retained": &l.Retained}
	sizes := map[string]*telemetry.Size{"bytes_per_s": &l.BytesPerS, "packet_bytes": &l.PacketBytes, "queue_bytes": &l.QueueBytes}
	for part := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		var err error
		switch {
		case numbers[name] != nil:
			*numbers[name], err = strconv.Atoi(value)
		case sizes[name] != nil:
			*sizes[name], err = telemetry.ParseSize(value)
		default:
			err = errors.New("there is no such limit; expected connections, sessions, messages_per_s, bytes_per_s, packet_bytes, inflight, queue, queue_bytes, subscriptions or retained")
		}
		if err != nil {
			return usagef("--limits %q: %v", part, err)
		}
	}
	return nil
}

// readPassword asks a person twice without showing it, or reads a line where
// nobody sits at a terminal.
func readPassword(env environment, name string) (string, error) {
	file, ok := env.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		line, err := bufio.NewReader(io.LimitReader(env.stdin, 4096)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read the password: %w", err)
		}
		if line = strings.TrimRight(line, "\r\n"); line == "" {
			return "", errors.New("no password: expected one line on standard input")
		}
		return line, nil
	}
	var typed [2]string
	for i, prompt := range []string{"Password of " + name, "Once more"} {
		fmt.Fprintf(env.stderr, "%s: ", prompt)
		read, err := term.ReadPassword(int(file.Fd()))
		fmt.Fprintln(env.stderr)
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		typed[i] = string(read)
	}
	if typed[0] != typed[1] {
		return "", errors.New("the two are not the same")
	}
	return typed[0], nil
}
