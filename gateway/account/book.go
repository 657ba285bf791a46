package account

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"haidang/gateway/telemetry"
)

// A Book is the accounts while they are being changed.
type Book struct {
	records []Record
	now     time.Time
}

// Edit changes the file at path: it reads it under a lock that all programs that
// change it take, lets change work on it, and replaces it. A file that is not
// there is made; an error of change leaves everything as it was.
func Edit(path string, change func(*Book) error) error {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock the accounts: %w", err)
	}
	defer lock.Close() // and with it the lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock the accounts %s: %w", path, err)
	}
	records, err := read(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	book := &Book{records: records, now: time.Now().UTC().Truncate(time.Second)}
	if err := change(book); err != nil {
		return err
	}
	return write(path, book.records)
}

// List reads the accounts of a file; a file that is not there has none.
func List(path string) ([]Record, error) {
	records, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return records, err
}

func (b *Book) find(name string) (*Record, error) {
	for i := range b.records {
		if b.records[i].Name == name {
			return &b.records[i], nil
		}
	}
	return nil, fmt.Errorf("there is no account %q", name)
}

// Add makes an account. password is of people, who choose it; the others get a
// secret, which is returned and nowhere else to be had. With secret false the
// account has none: it comes with a certificate or tokens.
func (b *Book) Add(r Record, password string, secret bool) (string, error) {
	if _, err := b.find(r.Name); err == nil {
		return "", fmt.Errorf("account %q is there already; rotate gives it a new secret, and remove takes it away", r.Name)
	}
	r.Created, r.Changed = b.now, b.now
	var shown string
	var err error
	switch {
	case r.Role.Person() && secret:
		r.Secret, err = sealPassword(password)
	case secret:
		shown = newSecret()
		r.Secret = sealSecret(shown)
	}
	if err != nil {
		return "", err
	}
	if faults := r.validate(); len(faults) > 0 {
		return "", errors.New(faults[0].String())
	}
	if len(b.records) >= maxAccounts {
		return "", fmt.Errorf("there are %d accounts, which is all that fit", maxAccounts)
	}
	b.records = append(b.records, r)
	return shown, nil
}

// Remove takes an account away.
func (b *Book) Remove(name string) error {
	if _, err := b.find(name); err != nil {
		return err
	}
	b.records = slices.DeleteFunc(b.records, func(r Record) bool { return r.Name == name })
	return nil
}

// Rotate gives a device or program a new secret and returns it. The old one
// stays good for keep, which may be 0.
func (b *Book) Rotate(name string, keep time.Duration) (string, error) {
	r, err := b.find(name)
	if err != nil {
		return "", err
	}
	if r.Role.Person() {
		return "", fmt.Errorf("account %q is a person's, who chooses the password: use passwd", name)
	}
	r.Previous, r.PreviousUntil = "", time.Time{}
	if keep > 0 && r.Secret != "" {
		r.Previous, r.PreviousUntil = r.Secret, b.now.Add(keep)
	}
	shown := newSecret()
	r.Secret, r.Changed = sealSecret(shown), b.now
	return shown, nil
}

// SetPassword gives a person a new password.
func (b *Book) SetPassword(name, password string) error {
	r, err := b.find(name)
	if err != nil {
		return err
	}
	if !r.Role.Person() {
		return fmt.Errorf("account %q is no person's: rotate gives it a new secret", name)
	}
	hash, err := sealPassword(password)
	if err != nil {
		return err
	}
	r.Secret, r.Changed = hash, b.now
	return nil
}

// Set changes what an account may do, by change; not its name, role and secrets.
func (b *Book) Set(name string, change func(*Record)) error {
	r, err := b.find(name)
	if err != nil {
		return err
	}
	next := *r
	change(&next)
	next.Name, next.Role, next.Secret, next.Tokens, next.Changed = r.Name, r.Role, r.Secret, r.Tokens, b.now
	if faults := next.validate(); len(faults) > 0 {
		return errors.New(faults[0].String())
	}
	*r = next
	return nil
}

// SetDisabled locks an account, or unlocks it.
func (b *Book) SetDisabled(name string, disabled bool) error {
	r, err := b.find(name)
	if err != nil {
		return err
	}
	r.Disabled, r.Changed = disabled, b.now
	return nil
}

// AddToken makes a token for an account and returns it. rights are the only ones
// that it has, none meaning all of the account's; it ends after life, 0 meaning
// never.
func (b *Book) AddToken(name string, rights []telemetry.Right, life time.Duration) (string, error) {
	r, err := b.find(name)
	if err != nil {
		return "", err
	}
	if faults := validateRights(rights); len(faults) > 0 {
		return "", errors.New(faults[0].Want)
	}
	a := r.account()
	for _, right := range rights {
		if !a.May(right, "") {
			return "", fmt.Errorf("account %q of role %s has no right %q to give to a token", name, r.Role, right)
		}
	}
	if len(r.Tokens) >= maxTokens {
		return "", fmt.Errorf("account %q has %d tokens, which is all that fit", name, maxTokens)
	}
	id, secret := strings.ToLower(rand.Text()[:12]), newSecret()
	token := Token{ID: id, Hash: sealSecret(secret), Rights: rights, Created: b.now}
	if life > 0 {
		token.Expires = b.now.Add(life)
	}
	r.Tokens = append(r.Tokens, token)
	return tokenPrefix + id + "_" + secret, nil
}

// RemoveToken takes the token with this id away.
func (b *Book) RemoveToken(name, id string) error {
	r, err := b.find(name)
	if err != nil {
		return err
	}
	n := len(r.Tokens)
	r.Tokens = slices.DeleteFunc(r.Tokens, func(t Token) bool { return t.ID == id })
	if len(r.Tokens) == n {
		return fmt.Errorf("account %q has no token %q", name, id)
	}
	r.Changed = b.now
	return nil
}
