package modbus

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// TestCutAnswerCompletedByLateOne: an answer lacks its last bytes, and a late
// answer to an earlier request comes behind it. Its first bytes are no values.
func TestCutAnswerCompletedByLateOne(t *testing.T) {
	for missing := 1; missing <= 4; missing++ {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		over := make(chan struct{})
		go func() {
			defer close(over)
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			read := func() []byte {
				frame := make([]byte, 12)
				if _, err := io.ReadFull(conn, frame); err != nil {
					return nil
				}
				return frame
			}
			late := read()
			cut := read() // after the time of the first one
			if late == nil || cut == nil {
				return
			}
			answer := mbap(cut, 3, 4, 0x04, 0x24, 0x04, 0x25)
			if _, err := conn.Write(append(answer[:len(answer)-missing], mbap(late, 3, 4, 0x07, 0xD0, 0x07, 0xD1)...)); err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, conn) // until the other side hangs up
		}()
		medium := bareLine(t, 200*time.Millisecond, listener.Addr().String()).buses[0].medium
		if _, err := medium.Exchange(t.Context(), []byte{0, 1, 0, 0, 0, 6, 1, readHolding, 0x07, 0xD0, 0, 2}); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("the first one: %v", err)
		}
		answer, err := medium.Exchange(t.Context(), []byte{0, 2, 0, 0, 0, 6, 1, readHolding, 0x04, 0x24, 0, 2})
		if !errors.Is(err, errBadAnswer) {
			t.Errorf("%d bytes missing: % x, %v; want a bad answer", missing, answer, err)
		}
		medium.Close()
		listener.Close()
		<-over
	}
}

func TestFollows(t *testing.T) {
	request := []byte{1, 7, 0, 0, 0, 6, 1, 3, 0, 10, 0, 2}
	stale := []byte{1, 5, 0, 0, 0, 5, 1, 3, 2, 7, 8}
	for _, test := range []struct {
		name string
		rest []byte
		well bool
	}{
		{"nothing", nil, true},
		{"a stale answer", stale, true},
		{"two of them", append(append([]byte{}, stale...), stale...), true},
		{"the beginning of one", stale[:5], true},
		{"one and the beginning of one", append(append([]byte{}, stale...), stale[:6]...), true},
		{"the answer again", []byte{1, 7, 0, 0, 0, 5, 1, 3, 2, 7, 8}, true},
		{"an answer to what was not asked", []byte{1, 8, 0, 0, 0, 5, 1, 3, 2, 7, 8}, false},
		{"the end of one", stale[1:], false},
		{"less of one", stale[4:], false},
		{"one, and the end of one", append(append([]byte{}, stale...), stale[2:]...), false},
		{"no length", []byte{1, 5, 0, 0, 0, 0, 1}, false},
	} {
		if err := follows(test.rest, request); (err == nil) != test.well {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
