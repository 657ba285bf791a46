package account

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"haidang/gateway/telemetry"
)

const (
	formatName    = "haidang-accounts"
	formatVersion = 1
	maxFileBytes  = 64 << 20
	maxAccounts   = 100_000
	maxTokens     = 64
	maxNote       = 1024
)

// header is the first line of the file.
type header struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
}

// A Record is an account as the file has it.
type Record struct {
	Name      string           `json:"name"`
	Role      telemetry.Role   `json:"role"`
	Devices   []string         `json:"devices,omitempty"`
	Publish   []string         `json:"publish,omitempty"`
	Subscribe []string         `json:"subscribe,omitempty"`
	Limits    telemetry.Limits `json:"limits,omitzero"`

	Secret        string    `json:"secret,omitempty"` // hash; empty: certificate or tokens only
	Previous      string    `json:"previous,omitempty"`
	PreviousUntil time.Time `json:"previous_until,omitzero"`
	Tokens        []Token   `json:"tokens,omitempty"`

	Note     string    `json:"note,omitempty"`
	Disabled bool      `json:"disabled,omitempty"`
	Created  time.Time `json:"created"`
	Changed  time.Time `json:"changed"` // its secret, rights or anything else
}

// A Token is a secret of a program that acts for an account.
type Token struct {
	ID      string            `json:"id"`
	Hash    string            `json:"hash"`
	Rights  []telemetry.Right `json:"rights,omitempty"` // none: all of the account's
	Created time.Time         `json:"created"`
	Expires time.Time         `json:"expires,omitzero"` // zero: never
}

// A Fault is what is wrong with a line of the file.
type Fault struct {
	telemetry.Fault
	File string
	Line int // from 1; 0: the file as a whole
}

// String returns file:line: path: want.
func (f Fault) String() string {
	at := f.File
	if f.Line > 0 {
		at += ":" + strconv.Itoa(f.Line)
	}
	return at + ": " + f.Fault.String()
}

// Faults is a list of faults as one error, a line each.
type Faults []Fault

// Error returns a line for each fault.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].String()
	}
	return strings.Join(lines, "\n")
}

// absent reports whether the error says that there is no such file, nor can be
// where a folder is expected: who makes the folder tells that.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) }

// Exists reports whether there is a file of accounts, good or bad.
func Exists(path string) bool {
	_, err := os.Stat(path)
	return !absent(err)
}

// read reads the file. The error is fs.ErrNotExist, of the file system, or
// Faults.
func read(path string) ([]Record, error) {
	file, err := os.Open(path)
	if absent(err) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("read the accounts: %w", err)
	}
	defer file.Close()
	whole := func(format string, args ...any) ([]Record, error) {
		return nil, Faults{{File: path, Fault: telemetry.Faultf("", format, args...)}}
	}
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the accounts: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return whole("mode %04o lets everybody on this machine read it; expected 0600", info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the accounts: %w", err)
	}
	if len(text) > maxFileBytes {
		return whole("the file has more than %d bytes", maxFileBytes)
	}
	return decode(path, text)
}

// decode reads the text of a file.
func decode(path string, text []byte) ([]Record, error) {
	var (
		records []Record
		faults  Faults
		lines   = map[string]int{} // by name of account and by id of token
		n       int
	)
	fault := func(list ...telemetry.Fault) {
		for _, f := range list {
			faults = append(faults, Fault{File: path, Line: n, Fault: f})
		}
	}
	for line := range bytes.Lines(text) {
		n++
		line = bytes.TrimSpace(line)
		if n == 1 {
			var h header
			if err := strict(line, &h); err != nil || h.Format != formatName {
				fault(telemetry.Faultf("", `the first line is not {"format":%q,"version":%d}`, formatName, formatVersion))
				return nil, faults
			}
			if h.Version != formatVersion {
				fault(telemetry.Faultf("version", "format %d is not known to this program, which reads %d: use the program that wrote it", h.Version, formatVersion))
				return nil, faults
			}
			continue
		}
		if len(line) == 0 {
			continue
		}
		var r Record
		if err := strict(line, &r); err != nil {
			fault(telemetry.Faultf("", "not an account: %v", err))
			continue
		}
		fault(r.validate()...)
		for _, key := range r.keys() {
			if first, taken := lines[key]; taken {
				fault(telemetry.Faultf("", "%s is that of line %d already", key, first))
			}
			lines[key] = n
		}
		if records = append(records, r); len(records) > maxAccounts {
			fault(telemetry.Faultf("", "more than %d accounts", maxAccounts))
			break
		}
	}
	if n == 0 {
		return nil, Faults{{File: path, Fault: telemetry.Faultf("", `empty; the first line is {"format":%q,"version":%d}`, formatName, formatVersion)}}
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return records, nil
}

// keys are what no other account may have.
func (r *Record) keys() []string {
	keys := []string{fmt.Sprintf("name %q", r.Name)}
	for _, t := range r.Tokens {
		keys = append(keys, fmt.Sprintf("token %q", t.ID))
	}
	return keys
}

// strict decodes one JSON value without unknown members and with nothing after
// it.
func strict(line []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the object")
	}
	return nil
}

func (r *Record) account() telemetry.Account {
	return telemetry.Account{Name: r.Name, Role: r.Role, Devices: r.Devices, Publish: r.Publish, Subscribe: r.Subscribe, Limits: r.Limits}
}

func (r *Record) validate() []telemetry.Fault {
	a := r.account()
	faults := a.Validate()
	hash := func(path, text string) {
		if text == "" {
			return
		}
		s, err := parseSealed(text)
		switch {
		case err != nil:
			faults = append(faults, telemetry.Faultf(path, "%v", err))
		case s.slow != r.Role.Person() && !strings.HasPrefix(path, "tokens"):
			faults = append(faults, telemetry.Faultf(path, "people have $argon2id$ and the others $sha256$; role %s has %.10s", r.Role, text))
		}
	}
	hash("secret", r.Secret)
	hash("previous", r.Previous)
	if len(r.Tokens) > maxTokens {
		faults = append(faults, telemetry.Faultf("tokens", "%d tokens; expected at most %d", len(r.Tokens), maxTokens))
	}
	for i, t := range r.Tokens {
		at := fmt.Sprintf("tokens[%d]", i)
		hash(at+".hash", t.Hash)
		if t.Hash == "" || t.ID == "" || strings.ContainsAny(t.ID, "_ \t") {
			faults = append(faults, telemetry.Faultf(at, "a token has an id without _ and blanks, and a hash"))
		}
		faults = append(faults, telemetry.Under(at, validateRights(t.Rights))...)
	}
	if len(r.Note) > maxNote {
		faults = append(faults, telemetry.Faultf("note", "the note has %d bytes; expected at most %d", len(r.Note), maxNote))
	}
	return faults
}

func validateRights(rights []telemetry.Right) []telemetry.Fault {
	var faults []telemetry.Fault
next:
	for i, right := range rights {
		for _, known := range telemetry.Rights() {
			if right == known {
				continue next
			}
		}
		faults = append(faults, telemetry.Faultf(fmt.Sprintf("rights[%d]", i), "right %q is not one of %v", right, telemetry.Rights()))
	}
	return faults
}

// encode writes the text of a file.
func encode(records []Record) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out) // ends each with a line feed
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(header{formatName, formatVersion}); err != nil {
		return nil, fmt.Errorf("write the accounts: %w", err)
	}
	for i := range records {
		if err := encoder.Encode(&records[i]); err != nil {
			return nil, fmt.Errorf("write account %q: %w", records[i].Name, err)
		}
	}
	return out.Bytes(), nil
}

// write replaces the file as a whole; after a power cut either the old or the
// new one is there.
func write(path string, records []Record) (err error) {
	text, err := encode(records)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	file, err := os.CreateTemp(dir, ".accounts-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write the accounts: %w", err)
	}
	defer func() {
		if err != nil {
			_ = file.Close() // closed already when all went well
			_ = os.Remove(file.Name())
			err = fmt.Errorf("write the accounts: %w", err)
		}
	}()
	if _, err = file.Write(text); err != nil {
		return err
	}
	if err = keepOwner(path, file); err != nil {
		return err
	}
	if err = errors.Join(file.Sync(), file.Close()); err != nil {
		return err
	}
	if err = os.Rename(file.Name(), path); err != nil {
		return err
	}
	return syncFolder(dir)
}

// keepOwner gives a new file the owner of the old one, or of its folder, when
// root writes it: the gateway runs as somebody else and must read it.
func keepOwner(path string, file *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); errors.Is(err, fs.ErrNotExist) {
		if err := unix.Stat(filepath.Dir(path), &st); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	return file.Chown(int(st.Uid), int(st.Gid))
}

func syncFolder(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
