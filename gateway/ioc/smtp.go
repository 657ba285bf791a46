package ioc

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/smtp"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"haidang/gateway/ioc/cap"
	"haidang/gateway/telemetry"
)

// Ports of SMTP where an address has none: submission (RFC 6409) and
// submission over TLS (RFC 8314).
const (
	portSMTP  = "587"
	portSMTPS = "465"
)

// maxThread bounds the earlier messages that a mail names.
const maxThread = 20

// SMTPConfig is a mail server and who gets mail through it. A mail is sent when
// a warning is raised, changes its severity or is over; those of one warning
// are one thread.
type SMTPConfig struct {
	// URL is smtps://host:465, or smtp://host:587, which then has to offer
	// STARTTLS.
	URL      string `yaml:"url"`
	Insecure bool   `yaml:"insecure"` // smtp:// without STARTTLS: for a relay on this machine or on a cable
	User     string `yaml:"user"`     // of the server; empty: nobody logs in
	Password string `yaml:"password"` // of the user; rather as ${NAME} than here
	Access   `yaml:",inline"`

	From       string             `yaml:"from"`    // the address that mail comes from
	To         []string           `yaml:"to"`      // addresses that mail goes to
	Timeout    telemetry.Duration `yaml:"timeout"` // of one mail, 1s to 1m; default DefaultTimeout
	TextConfig `yaml:",inline"`
}

// Validate reports what is wrong.
func (c SMTPConfig) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	fault := func(path, format string, args ...any) {
		faults = append(faults, telemetry.Faultf(path, format, args...))
	}
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Scheme != "smtp" && u.Scheme != "smtps" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "":
		fault("url", "expected smtp://host:587 or smtps://host:465")
	case u.User != nil:
		fault("url", "the url has a user in it; expected user and password as keys of their own")
	case u.Scheme == "smtps" && c.Insecure:
		fault("insecure", "smtps:// is never insecure; expected one of the two")
	}
	if c.Insecure && c.Password != "" && u != nil && !isLoopback(u.Hostname()) {
		fault("insecure", "the password would go over the network in clear; expected STARTTLS or smtps://")
	}
	if (c.User == "") != (c.Password == "") {
		fault("password", "expected user and password together")
	}
	if c.Token != "" {
		fault("token", "token is for HTTP; expected user and password")
	}
	if _, err := mailAddress(c.From); err != nil {
		fault("from", "%v", err)
	}
	if len(c.To) == 0 {
		fault("to", "to is missing; expected a list of mail addresses")
	}
	for i, to := range c.To {
		if _, err := mailAddress(to); err != nil {
			fault(fmt.Sprintf("to[%d]", i), "%v", err)
		}
	}
	faults = append(faults, c.Access.Validate()...)
	faults = append(faults, validTimeout(c.Timeout)...)
	return append(faults, c.TextConfig.Validate()...)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func mailAddress(text string) (*mail.Address, error) {
	a, err := mail.ParseAddress(text)
	if err != nil {
		return nil, fmt.Errorf("%q is not a mail address like IOC Huế <ioc@hue.gov.vn>", text)
	}
	if strings.ContainsFunc(a.Address, func(c rune) bool { return c > '~' || c <= ' ' }) {
		return nil, fmt.Errorf("mail address %q has letters beyond ASCII, which few servers take", a.Address)
	}
	return a, nil
}

func mailTexts() TextConfig {
	return TextConfig{
		Title: telemetry.Text{VI: "[{grade}] {headline}", EN: "[{grade}] {headline}"},
		Body: telemetry.Text{
			VI: "{description}\n\n{instruction}\n\nMức độ: {grade}\nKhu vực: {area}\nThời điểm: {time} (từ {start})\nMã: {id}/{n}\n",
			EN: "{description}\n\n{instruction}\n\nSeverity: {grade}\nArea: {area}\nTime: {time} (since {start})\nId: {id}/{n}\n"},
	}
}

// SMTP mails warnings. It is safe for concurrent use.
type SMTP struct {
	texts
	host, address string
	encrypted     bool // from the first byte
	insecure      bool
	user          string
	password      string
	access        Access
	from          *mail.Address
	to            []*mail.Address
	timeout       time.Duration
	reached       reached
}

// mailMemory is of how many mails it is known who has them, while others put them
// off.
const mailMemory = 256

// reached is who has a mail that others have not, by its id.
type reached struct {
	mu    sync.Mutex
	byID  map[string][]string
	order []string // ids
}

func (r *reached) of(id string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.byID[id])
}

func (r *reached) add(id string, addresses []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.byID[id]; !known {
		if len(r.order) == mailMemory {
			delete(r.byID, r.order[0])
			r.order = r.order[1:]
		}
		r.order = append(r.order, id)
	}
	if r.byID == nil {
		r.byID = map[string][]string{}
	}
	r.byID[id] = append(r.byID[id], addresses...)
}

func (r *reached) forget(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.byID[id]; known {
		delete(r.byID, id)
		r.order = slices.DeleteFunc(r.order, func(other string) bool { return other == id })
	}
}

// NewSMTP makes a mail recipient of a valid configuration.
func NewSMTP(c SMTPConfig, from Bulletins) *SMTP {
	s := &SMTP{texts: *newTexts(c.TextConfig.or(mailTexts()), from), insecure: c.Insecure, user: c.User, password: c.Password, access: c.Access,
		timeout: c.Timeout.Std()}
	if s.timeout == 0 {
		s.timeout = DefaultTimeout
	}
	if u, err := url.Parse(c.URL); err == nil {
		s.host, s.encrypted = u.Hostname(), u.Scheme == "smtps"
		port := u.Port()
		switch {
		case port == "" && s.encrypted:
			port = portSMTPS
		case port == "":
			port = portSMTP
		}
		s.address = net.JoinHostPort(s.host, port)
	}
	s.from, _ = mailAddress(c.From) // the configuration was validated
	for _, to := range c.To {
		a, _ := mailAddress(to)
		s.to = append(s.to, a)
	}
	return s
}

// Picks reports whether the transition says something about the danger: mail
// about what operators do would only hide it.
func (s *SMTP) Picks(w telemetry.Warning) bool { return s.picks(&w) }

// Deliver makes one attempt to mail the warning.
func (s *SMTP) Deliver(ctx context.Context, w telemetry.Warning) error {
	b := s.texts.from.Chronicle.Now(w)
	vi, en := s.write(&b, true), s.write(&b, false)
	return s.send(ctx, mailing{
		id: b.Identifier, thread: b.Earlier(), title: vi.Title, vi: vi.Body, en: en.Title + "\n\n" + en.Body,
		urgent: w.Severity >= telemetry.Severe && b.Type != cap.TypeCancel,
	})
}

// A mailing is what a mail says.
type mailing struct {
	id     string
	thread []string // ids of earlier mails, the oldest first
	title  string
	vi, en string
	urgent bool
}

// compose writes a mail (RFC 5322) with a part for each language.
func (s *SMTP) compose(m mailing) []byte {
	var b bytes.Buffer
	header := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, value) }
	_, domain, _ := strings.Cut(s.from.Address, "@")
	id := func(id string) string { return "<" + id + "@" + domain + ">" }
	to := make([]string, len(s.to))
	for i, a := range s.to {
		to[i] = a.String()
	}
	header("From", s.from.String())
	header("To", strings.Join(to, ",\r\n "))
	header("Subject", mime.QEncoding.Encode("utf-8", oneLine(m.title)))
	header("Date", time.Now().In(vietnam()).Format(time.RFC1123Z))
	// The same message has the same id when it is sent again.
	header("Message-ID", id(m.id))
	if n := len(m.thread); n > 0 {
		references := make([]string, 0, maxThread)
		for _, earlier := range m.thread[max(0, n-maxThread):] {
			references = append(references, id(earlier))
		}
		header("In-Reply-To", references[len(references)-1])
		header("References", strings.Join(references, "\r\n "))
	}
	header("Auto-Submitted", "auto-generated") // RFC 3834: nothing answers by itself
	if m.urgent {
		header("Importance", "high")
		header("X-Priority", "1")
	}
	header("MIME-Version", "1.0")
	parts := multipart.NewWriter(&b)
	header("Content-Type", `multipart/mixed; boundary="`+parts.Boundary()+`"`)
	b.WriteString("\r\n")
	for _, part := range [...]struct{ language, text string }{{"vi", m.vi}, {"en", m.en}} {
		// Writing to memory does not fail.
		w, _ := parts.CreatePart(textproto.MIMEHeader{
			"Content-Type": {"text/plain; charset=utf-8"}, "Content-Language": {part.language},
			"Content-Disposition": {"inline"}, "Content-Transfer-Encoding": {"quoted-printable"}})
		q := quotedprintable.NewWriter(w)
		_, _ = q.Write([]byte(strings.ReplaceAll(strings.ToValidUTF8(part.text, "\ufffd"), "\n", "\r\n")))
		_ = q.Close()
	}
	_ = parts.Close()
	return b.Bytes()
}

// send makes one attempt to hand a mail to the server.
func (s *SMTP) send(ctx context.Context, m mailing) error {
	attempt, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	err := s.converse(attempt, m)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case attempt.Err() != nil:
		return &Failure{Reason: reasonTimeout, Detail: fmt.Sprintf("mail through %s: it did not take the mail within %s", s.address, s.timeout)}
	}
	return s.failure(err)
}

// converse speaks SMTP (RFC 5321) once.
func (s *SMTP) converse(ctx context.Context, m mailing) (err error) {
	secure, err := s.access.tls(s.host)
	if err != nil {
		return &Failure{Reason: reasonTLS, Detail: err.Error()}
	}
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.address)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	defer raw.Close()
	conn := raw
	if s.encrypted {
		conn = tls.Client(conn, secure)
	}
	client, err := smtp.NewClient(conn, s.host)
	if err != nil {
		return err
	}
	if err := client.Hello(literal(conn.LocalAddr())); err != nil {
		return err
	}
	if !s.encrypted && !s.insecure {
		if offers, _ := client.Extension("STARTTLS"); !offers {
			return &Failure{Reason: reasonTLS, Detail: "the server does not offer STARTTLS; use smtps://, or insecure: true for a relay on this machine"}
		}
		if err := client.StartTLS(secure); err != nil {
			return err
		}
	}
	if s.user != "" {
		if err := client.Auth(s.auth(client)); err != nil {
			return &Failure{Reason: reasonLogin, Detail: "log in as " + s.user + ": " + err.Error()}
		}
	}
	refused, err := s.hand(client, m)
	if err != nil {
		return err
	}
	_ = client.Quit() // the mail is taken, whatever it says now
	if len(refused) > 0 {
		return &Failure{Reason: reasonAddress, Delivered: true, Detail: "some addresses are refused: " + strings.Join(refused, "; ")}
	}
	return nil
}

// literal is how a machine without a name in the DNS greets (RFC 5321, 4.1.3).
func literal(local net.Addr) string {
	host, _, err := net.SplitHostPort(local.String())
	ip := net.ParseIP(host)
	switch {
	case err != nil || ip == nil:
		return "localhost"
	case ip.To4() == nil:
		return "[IPv6:" + ip.String() + "]"
	}
	return "[" + ip.String() + "]"
}

// hand gives the mail to the server for those addresses that it takes and that do
// not have it from an attempt before, and returns what it says of the others. When
// it puts some off, the error says so after the others have the mail.
func (s *SMTP) hand(client *smtp.Client, m mailing) (refused []string, err error) {
	if err := client.Mail(s.from.Address); err != nil {
		return nil, err
	}
	have := s.reached.of(m.id)
	var taken []string
	var later *Failure
	for _, to := range s.to {
		if slices.Contains(have, to.Address) {
			continue
		}
		err := client.Rcpt(to.Address)
		var answer *textproto.Error
		switch errors.As(err, &answer); {
		case err == nil:
			taken = append(taken, to.Address)
		case answer != nil && answer.Code/100 == 5:
			refused = append(refused, fmt.Sprintf("%s: %v", to.Address, err))
		case answer != nil && answer.Code != serviceCloses:
			later = &Failure{Reason: statusReason(answer.Code), Detail: fmt.Sprintf("%s: %v", to.Address, err)}
		default:
			return nil, err
		}
	}
	if len(taken) > 0 {
		if err := s.data(client, s.compose(m)); err != nil {
			return nil, err
		}
	}
	switch {
	case later != nil && len(taken)+len(have) > 0:
		s.reached.add(m.id, taken)
		later.OneWarning, later.Partly = true, true // the server is well: one address must not hold back all that follows
		return nil, later
	case later != nil:
		return nil, later // it may take it later
	case len(refused) == len(s.to):
		return nil, &Failure{Reason: reasonAddress, Detail: "every address is refused: " + strings.Join(refused, "; ")}
	}
	s.reached.forget(m.id)
	return refused, nil
}

// serviceCloses is the answer of a server that ends the conversation (RFC 5321,
// 3.8).
const serviceCloses = 421

// data hands over the text of a mail.
func (s *SMTP) data(client *smtp.Client, text []byte) error {
	w, err := client.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		var answer *textproto.Error
		if errors.As(err, &answer) && answer.Code/100 == 5 {
			return &Failure{Reason: reasonStatus5xx, OneWarning: true, Detail: "the server refuses the mail: " + err.Error()}
		}
		return err
	}
	return nil
}

// auth chooses how to log in: PLAIN where the server offers it, else LOGIN.
func (s *SMTP) auth(client *smtp.Client) smtp.Auth {
	_, offered := client.Extension("AUTH")
	switch methods := strings.Fields(strings.ToUpper(offered)); {
	case contains(methods, "PLAIN"):
		return smtp.PlainAuth("", s.user, s.password, s.host)
	case contains(methods, "CRAM-MD5"):
		return smtp.CRAMMD5Auth(s.user, s.password)
	}
	return &loginAuth{user: s.user, password: s.password, host: s.host}
}

func contains(words []string, word string) bool {
	for _, w := range words {
		if w == word {
			return true
		}
	}
	return false
}

// loginAuth is the LOGIN method, which Microsoft's servers offer alone
// (draft-murchison-sasl-login).
type loginAuth struct{ user, password, host string }

// Start refuses to send a password in clear.
func (a *loginAuth) Start(server *smtp.ServerInfo) (string, []byte, error) {
	if !server.TLS && !isLoopback(a.host) {
		return "", nil, errors.New("the password would go over the network in clear")
	}
	return "LOGIN", nil, nil
}

// Next answers the server's two questions.
func (a *loginAuth) Next(question []byte, more bool) ([]byte, error) {
	if !more {
		return nil, nil
	}
	switch strings.ToLower(strings.TrimRight(string(question), ": ")) {
	case "username", "user name":
		return []byte(a.user), nil
	case "password":
		return []byte(a.password), nil
	}
	return nil, fmt.Errorf("the server asks %q; expected Username or Password", question)
}

func (s *SMTP) failure(err error) error {
	if f, ok := errors.AsType[*Failure](err); ok {
		f.Detail = "mail through " + s.address + ": " + f.Detail
		return f
	}
	f := &Failure{Reason: transportReason(err), Detail: fmt.Sprintf("mail through %s: %v", s.address, err)}
	if answer, ok := errors.AsType[*textproto.Error](err); ok {
		f.Reason = statusReason(answer.Code)
	}
	return f
}
