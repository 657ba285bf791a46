package account

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

// Bounds of the passwords that people choose.
const (
	MinPassword = 10  // characters (NIST SP 800-63B asks for eight at least)
	maxPassword = 256 // bytes
)

// Cost of a password: OWASP's least for argon2id on small machines, about 30 ms
// of one core. All of the hash says what it cost, so this may change.
const (
	argonMemory = 19 << 10 // KiB
	argonTime   = 2
	argonLanes  = 1
	argonBytes  = 32
	argonSlots  = 2 // computed at a time
)

const (
	saltBytes   = 16
	tokenPrefix = "hd1_"
)

var b64 = base64.RawStdEncoding

// newSecret makes a secret of 130 bits.
func newSecret() string { return rand.Text() }

func newSalt() []byte {
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails (crypto/rand)
	return salt
}

// sealSecret hashes a generated secret.
func sealSecret(secret string) string {
	salt := newSalt()
	return "$sha256$" + b64.EncodeToString(salt) + "$" + b64.EncodeToString(digest(salt, secret))
}

func digest(salt []byte, secret string) []byte {
	h := sha256.New()
	h.Write(salt)
	h.Write([]byte(secret))
	return h.Sum(nil)
}

// sealPassword hashes a password that a person has chosen.
func sealPassword(password string) (string, error) {
	switch {
	case !utf8.ValidString(password) || strings.ContainsAny(password, "\x00\r\n"):
		return "", errors.New("the password is not one line of text")
	case utf8.RuneCountInString(password) < MinPassword:
		return "", fmt.Errorf("the password has %d characters; expected %d at least", utf8.RuneCountInString(password), MinPassword)
	case len(password) > maxPassword:
		return "", fmt.Errorf("the password has %d bytes; expected at most %d", len(password), maxPassword)
	}
	salt := newSalt()
	key := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonLanes, argonBytes)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonLanes, b64.EncodeToString(salt), b64.EncodeToString(key)), nil
}

// A sealed is a hash as the file has it.
type sealed struct {
	slow               bool
	memory, time, lane uint32
	salt, key          []byte
}

// parseSealed reads a hash.
func parseSealed(text string) (*sealed, error) {
	parts := strings.Split(text, "$")
	s := &sealed{}
	switch {
	case len(parts) == 4 && parts[0] == "" && parts[1] == "sha256":
	case len(parts) == 6 && parts[0] == "" && parts[1] == "argon2id":
		s.slow = true
		if parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
			return nil, fmt.Errorf("argon2id %q is not v=%d", parts[2], argon2.Version)
		}
		if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &s.memory, &s.time, &s.lane); n != 3 || err != nil {
			return nil, fmt.Errorf("argon2id %q is not of the form m=65536,t=3,p=1", parts[3])
		}
		if s.memory < 8 || s.memory > 256<<10 || s.time < 1 || s.time > 64 || s.lane < 1 || s.lane > 16 {
			return nil, fmt.Errorf("argon2id %q is not within m=8..262144, t=1..64, p=1..16", parts[3])
		}
	default:
		return nil, errors.New("a hash is $sha256$salt$hash or $argon2id$v=19$m=..,t=..,p=..$salt$hash")
	}
	var err1, err2 error
	s.salt, err1 = b64.DecodeString(parts[len(parts)-2])
	s.key, err2 = b64.DecodeString(parts[len(parts)-1])
	if err1 != nil || err2 != nil || len(s.salt) < 8 || len(s.salt) > 64 || len(s.key) != 32 {
		return nil, errors.New("a hash has a salt of 8 to 64 bytes and a hash of 32, in base64 without padding")
	}
	return s, nil
}

// fits reports whether the secret is the one. A slow hash takes tens of
// milliseconds of a core.
func (s *sealed) fits(secret string) bool {
	var key []byte
	if s.slow {
		key = argon2.IDKey([]byte(secret), s.salt, s.time, s.memory, uint8(s.lane), uint32(len(s.key)))
	} else {
		key = digest(s.salt, secret)
	}
	return subtle.ConstantTimeCompare(key, s.key) == 1
}

// slots bound how many passwords are computed at a time and wait to be.
type slots struct{ working, waiting chan struct{} }

func newSlots() slots {
	return slots{working: make(chan struct{}, argonSlots), waiting: make(chan struct{}, 64)}
}

// do runs f when there is room; false means that there was none.
func (s slots) do(ctx context.Context, f func()) bool {
	select {
	case s.waiting <- struct{}{}:
	default:
		return false
	}
	defer func() { <-s.waiting }()
	select {
	case s.working <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-s.working }()
	f()
	return true
}
