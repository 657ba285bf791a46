package ioc

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// A mailServer speaks enough SMTP over real sockets, and remembers what it took.
// answers replaces its answer to a command, by the command's first word.
type mailServer struct {
	tls     *tls.Config
	offers  []string
	answers map[string]string
	hangs   string // the command that it does not answer
	smtps   bool   // TLS from the first byte

	listener net.Listener
	serving  sync.WaitGroup

	mu    sync.Mutex
	lines []string
	mails []string
}

func (m *mailServer) start(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.listener = listener
	m.serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			m.serving.Go(func() { m.serve(conn) })
		}
	})
	t.Cleanup(func() { listener.Close(); m.serving.Wait() })
	return listener.Addr().String()
}

func (m *mailServer) serve(conn net.Conn) {
	defer func() { conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if m.smtps {
		conn = tls.Server(conn, m.tls)
	}
	r := bufio.NewReader(conn)
	say := func(text string) { _, _ = io.WriteString(conn, text+"\r\n") }
	say("220 test")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		m.mu.Lock()
		m.lines = append(m.lines, line)
		m.mu.Unlock()
		word, _, _ := strings.Cut(strings.ToUpper(line), " ")
		if answer, ok := m.answers[line]; ok {
			say(answer)
			continue
		}
		answer, changed := m.answers[word]
		if word == "DATA" {
			answer, changed = m.answers["the mail"]
		}
		switch {
		case word == m.hangs:
			_, _ = r.ReadByte()
			return
		case changed && word != "DATA":
			say(answer)
		case word == "EHLO":
			say("250-test")
			for _, o := range m.offers {
				say("250-" + o)
			}
			say("250 8BITMIME")
		case word == "STARTTLS":
			say("220 go on")
			conn = tls.Server(conn, m.tls)
			r = bufio.NewReader(conn)
		case line == "AUTH LOGIN":
			say("334 VXNlcm5hbWU6") // Username:
			user, _ := r.ReadString('\n')
			say("334 UGFzc3dvcmQ6") // Password:
			password, _ := r.ReadString('\n')
			if user != "aW9j\r\n" || password != "YmltYXQ=\r\n" { // ioc, bimat
				say("535 wrong")
				continue
			}
			say("235 welcome")
		case word == "AUTH":
			say("235 welcome")
		case word == "DATA":
			say("354 go on")
			var text strings.Builder
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if line == ".\r\n" {
					break
				}
				text.WriteString(strings.TrimPrefix(line, "."))
			}
			if changed {
				say(answer)
				continue
			}
			m.mu.Lock()
			m.mails = append(m.mails, text.String())
			m.mu.Unlock()
			say("250 taken")
		case word == "QUIT":
			say("221 bye")
			return
		default:
			say("250 fine")
		}
	}
}

func (m *mailServer) said() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.lines)
}

func mailer(address string) SMTPConfig {
	return SMTPConfig{URL: "smtp://" + address, Insecure: true, From: "IOC Huế <ioc@hue.example>",
		To: []string{"Ban chỉ huy <pctt@hue.example>", "truc@hue.example"}}
}

// read takes a mail apart as a reader does: subject and parts.
func read(t *testing.T, text string) (header mail.Header, subject string, parts []string) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if subject, err = (&mime.WordDecoder{}).DecodeHeader(m.Header.Get("Subject")); err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		part, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return m.Header, subject, parts
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(quotedprintable.NewReader(part))
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, part.Header.Get("Content-Language")+": "+string(body))
	}
}

func TestMail(t *testing.T) {
	server := &mailServer{}
	config := mailer(server.start(t))
	if faults := config.Validate(); len(faults) > 0 {
		t.Fatal(faults)
	}
	from := bulletins()
	s := NewSMTP(config, from)
	first, second := flooded("kim-long", 1, telemetry.Severe), flooded("kim-long", 2, telemetry.Extreme)
	second.Message.VI = "Mực nước 5,05 m\r\nBcc: evil@example.com\n.\nxin <chào>"
	second.Exercise = true
	for _, w := range []telemetry.Warning{first, second} {
		from.Chronicle.Apply(w)
		if !s.Picks(w) {
			t.Fatal("not picked")
		}
		if err := s.Deliver(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	ack := second
	ack.N, ack.State = 3, telemetry.Acknowledged
	if s.Picks(ack) {
		t.Error("mail about what an operator did")
	}
	header, subject, parts := read(t, server.mails[1])
	if subject != "DIỄN TẬP: [đặc biệt nghiêm trọng] Lũ: Mực nước 5,05 m Bcc: evil@example.com . xin <chào>" || header.Get("Bcc") != "" {
		t.Errorf("subject %q, header %v", subject, header)
	}
	if header.Get("In-Reply-To") != "<kim-long-flood-3f9a2c1b.1@hue.example>" || header.Get("Message-Id") != "<kim-long-flood-3f9a2c1b.2@hue.example>" {
		t.Errorf("not one thread: %v", header)
	}
	if header.Get("Importance") != "high" || header.Get("Auto-Submitted") != "auto-generated" {
		t.Errorf("header %v", header)
	}
	if to, err := header.AddressList("To"); err != nil || len(to) != 2 || to[0].Name != "Ban chỉ huy" {
		t.Errorf("to %v %v", to, err)
	}
	if len(parts) != 2 || !strings.HasPrefix(parts[0], "vi: DIỄN TẬP: ") || !strings.HasPrefix(parts[1], "en: EXERCISE: ") ||
		!strings.Contains(parts[0], "\r\n.\r\nxin <chào>") || !strings.Contains(parts[0], "Thời điểm: 09:32 27/10/2025") {
		t.Errorf("parts %q", parts)
	}
}

// A reminder is mailed although nothing has changed, in the warning's thread,
// and says why; an acknowledgement is not.
func TestReminders(t *testing.T) {
	server := &mailServer{}
	from := bulletins()
	r := NewRecipient("mail", NewSMTP(mailer(server.start(t)), from), quick(nil))
	list := transitions(flooded("a", 1, telemetry.Severe), flooded("a", 2, telemetry.Severe), flooded("a", 3, telemetry.Severe))
	list[1].Act = &telemetry.Act{Do: telemetry.Remind}
	list[2].Act, list[2].State = &telemetry.Act{Do: telemetry.Ack}, telemetry.Acknowledged
	for _, x := range list {
		from.Chronicle.Apply(x.Warning)
	}
	if err := r.Sender(All).Accept(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	if offer := r.Offer([]telemetry.Warning{list[2].Warning}); len(offer) != 1 || offer[0].N != 1 {
		t.Errorf("a new recipient is offered %+v, want the warning as it was raised", offer)
	}
	if len(server.mails) != 2 {
		t.Fatalf("%d mails, want the warning and its reminder", len(server.mails))
	}
	header, subject, parts := read(t, server.mails[1])
	if !strings.HasPrefix(subject, "CHƯA AI NHẬN: [nghiêm trọng]") || !strings.HasPrefix(parts[1], "en: NOT ACKNOWLEDGED: ") ||
		header.Get("In-Reply-To") != "<a-flood-3f9a2c1b.1@hue.example>" {
		t.Errorf("%q %v %q", subject, header, parts)
	}
}

// A password never leaves in clear, a certificate is checked, and what the
// server says decides what happens next.
func TestMailServers(t *testing.T) {
	a := newAuthority(t)
	ours := &tls.Config{Certificates: []tls.Certificate{a.sign("server")}}
	for _, c := range []struct {
		name   string
		server *mailServer
		change func(*SMTPConfig)
		reason string // "": taken
		says   string
		check  func(t *testing.T, f *Failure, lines []string)
	}{
		{name: "no STARTTLS", server: &mailServer{}, change: func(c *SMTPConfig) { c.Insecure = false }, reason: "tls", says: "does not offer STARTTLS"},
		{name: "STARTTLS and LOGIN", server: &mailServer{tls: ours, offers: []string{"STARTTLS", "AUTH PLAIN"}},
			change: func(c *SMTPConfig) {
				c.Insecure, c.User, c.Password, c.CA = false, "ioc", "bimat", a.path("ca.pem")
			},
			check: func(t *testing.T, _ *Failure, lines []string) {
				for _, l := range lines[:slices.Index(lines, "STARTTLS")] {
					if strings.HasPrefix(l, "AUTH") {
						t.Errorf("%q before STARTTLS", l)
					}
				}
			}},
		{name: "smtps and LOGIN", server: &mailServer{tls: ours, smtps: true, offers: []string{"AUTH LOGIN"}},
			change: func(c *SMTPConfig) {
				c.URL = strings.Replace(c.URL, "smtp:", "smtps:", 1)
				c.Insecure, c.User, c.Password, c.CA = false, "ioc", "bimat", a.path("ca.pem")
			}},
		{name: "unknown authority", server: &mailServer{tls: ours, offers: []string{"STARTTLS"}}, change: func(c *SMTPConfig) { c.Insecure = false }, reason: "tls"},
		{name: "wrong password", server: &mailServer{offers: []string{"AUTH PLAIN"}, answers: map[string]string{"AUTH": "535 wrong password"}},
			change: func(c *SMTPConfig) { c.User, c.Password = "ioc", "x" }, reason: "login", says: "log in as ioc: 535"},
		{name: "busy", server: &mailServer{answers: map[string]string{"MAIL": "421 too busy"}}, reason: "status_4xx", says: "too busy"},
		{name: "greylisted", server: &mailServer{answers: map[string]string{"RCPT": "450 later"}}, reason: "status_4xx"},
		{name: "one address is unknown", server: &mailServer{answers: map[string]string{"RCPT TO:<truc@hue.example>": "550 who?"}}, reason: "address", says: "truc@hue.example: 550",
			check: func(t *testing.T, f *Failure, _ []string) {
				if !f.Delivered {
					t.Error("the other one has it")
				}
			}},
		{name: "all are unknown", server: &mailServer{answers: map[string]string{"RCPT": "550 who?"}}, reason: "address",
			check: func(t *testing.T, f *Failure, _ []string) {
				if f.Delivered {
					t.Error("nobody has it")
				}
			}},
		{name: "the mail is refused", server: &mailServer{answers: map[string]string{"the mail": "554 spam"}}, reason: "status_5xx", says: "spam",
			check: func(t *testing.T, f *Failure, _ []string) {
				if !f.OneWarning {
					t.Error("the fault is not this mail's")
				}
			}},
		{name: "hangs", server: &mailServer{hangs: "MAIL"}, change: func(c *SMTPConfig) { c.Timeout = telemetry.Duration(time.Second) }, reason: "timeout", says: "within 1s"},
		{name: "not SMTP", server: &mailServer{answers: map[string]string{"EHLO": "HTTP/1.1 400 Bad", "HELO": "nonsense"}}, reason: "connection"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := mailer(c.server.start(t))
			if c.change != nil {
				c.change(&config)
			}
			err := NewSMTP(config, bulletins()).Deliver(t.Context(), flooded("a", 1, telemetry.Severe))
			var f *Failure
			if c.reason != "" {
				if f = failureOf(t, err); f.Reason != c.reason || !strings.Contains(f.Detail, c.says) || strings.Contains(f.Detail, "bimat") {
					t.Errorf("%s: %s; want %s: %s", f.Reason, f.Detail, c.reason, c.says)
				}
			} else if err != nil {
				t.Error(err)
			}
			if c.check != nil {
				c.check(t, f, c.server.said())
			}
		})
	}
}

func TestMailIsGivenUpWhenTheGatewayStops(t *testing.T) {
	server := &mailServer{hangs: "EHLO"}
	s := NewSMTP(mailer(server.start(t)), bulletins())
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Deliver(ctx, flooded("a", 1, telemetry.Severe)) }()
	for len(server.said()) == 0 { // it has greeted
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("nothing was said")
		}
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A recipient some of whose addresses are refused has the warning, and says so.
func TestPartlyDelivered(t *testing.T) {
	server := &mailServer{answers: map[string]string{"RCPT TO:<truc@hue.example>": "550 who?"}}
	r := NewRecipient("mail", NewSMTP(mailer(server.start(t)), bulletins()), quick(nil))
	if err := r.Sender(All).Accept(t.Context(), transitions(flooded("a", 1, telemetry.Severe))); err != nil {
		t.Fatal(err)
	}
	if h := r.Health(); h.LastSuccess == nil || h.Since != nil || !strings.Contains(h.LastError, "truc@hue.example: 550") {
		t.Errorf("health %+v", h)
	}
	if len(server.mails) != 1 {
		t.Errorf("%d mails", len(server.mails))
	}
}

func TestTexts(t *testing.T) {
	w := flooded("kim-long", 2, telemetry.Extreme)
	w.AckedBy = "An"
	from := bulletins()
	b, _ := from.Chronicle.Of(w)
	for text, want := range map[string]string{
		"{{{device}}} {value.level_m} {value.none} {threshold}": "{kim-long} 3.62 – 3.5",
		"{state}, {severity}, {grade}":                          "đang cảnh báo, đặc biệt nghiêm trọng, đặc biệt nghiêm trọng",
		"{time} {start} {n} {id} {gateway} { rule }":            "09:32 27/10/2025 09:32 27/10/2025 2 kim-long-flood-3f9a2c1b box flood-level",
		"{acked_by}{kind}{site} {event} {area}":                 "Anriverkim-long Lũ kim-long",
		"no place":                                              "no place",
	} {
		c := TextConfig{Body: telemetry.Text{VI: text}}
		if faults := c.Validate(); len(faults) > 0 {
			t.Errorf("%q: %v", text, faults)
		}
		if got := newTexts(c, from).write(&b, true).Body; got != want {
			t.Errorf("%q gives %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"{": "a { is not closed", "}": "a } closes nothing", "{x": "is not closed", "{}": "{} is not known", "{value.}": "is not known",
		"{value.a b}": "is not known", "{{x}": "a } closes nothing", `{template "x"}`: "is not known", "{.ID}": "is not known",
	} {
		faults := TextConfig{Title: telemetry.Text{EN: text}}.Validate()
		if len(faults) != 1 || faults[0].Path != "title.en" || !strings.Contains(faults[0].Want, want) {
			t.Errorf("%q: %v, want %q", text, faults, want)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("{{{device}}} {value.level_m}")
	from := bulletins()
	b, _ := from.Chronicle.Of(flooded("kim-long", 2, telemetry.Extreme))
	f.Fuzz(func(t *testing.T, text string) {
		c := TextConfig{Title: telemetry.Text{VI: text}, Body: telemetry.Text{VI: text}}
		l := newTexts(c, from).write(&b, true)
		if strings.ContainsAny(l.Title, "\r\n") {
			t.Errorf("%q gives the title %q", text, l.Title)
		}
		if len(c.Validate()) == 0 && !strings.ContainsAny(text, "{}") && l.Body != strings.TrimSpace(text) {
			t.Errorf("%q gives %q", text, l.Body)
		}
	})
}

func ExampleSMTPConfig() {
	fmt.Println(SMTPConfig{URL: "mail.hue.example:25", From: "ioc", To: []string{"a@b", "đ@b"}, User: "x"}.Validate())
	// Output:
	// [url: expected smtp://host:587 or smtps://host:465 password: expected user and password together from: "ioc" is not a mail address like IOC Huế <ioc@hue.gov.vn> to[1]: mail address "đ@b" has letters beyond ASCII, which few servers take]
}
