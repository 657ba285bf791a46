package faults

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// alarmEvery is which readings raise a warning.
const alarmEvery = 100

// A publisher sends numbered readings with QoS 1 and remembers which were
// acknowledged. What was not acknowledged is sent again, before anything new,
// over its next connection.
type publisher struct {
	device string
	window int           // unacknowledged at a time
	pause  time.Duration // between two readings
	pad    string        // a word that each reading carries

	user, secret string        // an account; "" for none
	patience     time.Duration // without an acknowledgement, before it connects again; 0: for ever

	mu    sync.Mutex
	times []int64 // Unix ms of each reading that was made
	acked []bool
	when  []time.Time   // of each acknowledgement
	count int           // of acked
	first int           // below it everything is acknowledged
	wait  time.Duration // the longest for an acknowledgement; see slowest
}

// A sent message waits for its acknowledgement.
type sent struct {
	n  int
	at time.Time
}

func newPublisher(device string) *publisher {
	return &publisher{device: device, window: 50}
}

// early returns how long it is until the next reading is due. No reading is ahead
// of the clock: what the rules take as the newest is never later than its receipt.
func (p *publisher) early() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.times); n > 0 {
		return time.Until(time.UnixMilli(p.times[n-1]).Add(max(p.pause, time.Millisecond)))
	}
	return 0
}

// make makes the next reading: its time is now, and later than the last one's.
func (p *publisher) make() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := time.Now().UnixMilli()
	if n := len(p.times); n > 0 {
		at = max(at, p.times[n-1]+1)
	}
	p.times = append(p.times, at)
	p.acked = append(p.acked, false)
	p.when = append(p.when, time.Time{})
	return len(p.times) - 1
}

func (p *publisher) ack(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.acked[n] {
		p.acked[n] = true
		p.when[n] = time.Now()
		p.count++
	}
	for p.first < len(p.acked) && p.acked[p.first] {
		p.first++
	}
}

// slowest returns the longest wait for an acknowledgement since it was asked last.
func (p *publisher) slowest() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	wait := p.wait
	p.wait = 0
	return wait
}

// acknowledged returns how many readings were acknowledged.
func (p *publisher) acknowledged() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

func (p *publisher) payload(dst []byte, n int) []byte {
	alarm := 0
	if n%alarmEvery == 0 {
		alarm = 1
	}
	p.mu.Lock()
	at := p.times[n]
	p.mu.Unlock()
	dst = fmt.Appendf(dst, `{"n":%d,"alarm":%d,"time":%d`, n, alarm, at)
	if p.pad != "" {
		dst = fmt.Appendf(dst, `,"pad":"%s"`, p.pad)
	}
	return append(dst, '}')
}

// keep publishes until ctx ends, over one connection after the other, each to the
// next address.
func (p *publisher) keep(ctx context.Context, addresses ...string) {
	for i := 0; ctx.Err() == nil; i++ {
		_ = p.publish(ctx, addresses[i%len(addresses)]) // the process may just have been killed
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// publish publishes over one connection until it ends or ctx does. When ctx ends
// it waits a moment for the last acknowledgements.
func (p *publisher) publish(ctx context.Context, address string) error {
	conn, err := dialAs(address, p.device, p.user, p.secret, 0)
	if err != nil {
		return err
	}
	defer conn.Close()
	inflight := make(chan sent, p.window)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer conn.Close()
		if p.readAcks(conn, inflight) != nil {
			conn.Close()
			for range inflight { // unblocks the writer; ends when it has ended
			}
		}
	})
	err = p.writeAll(ctx, conn, inflight)
	close(inflight)
	if err == nil && p.patience == 0 {
		_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	} else if err == nil {
		// Its own deadlines go on; what was written is acknowledged until then.
		time.AfterFunc(2*time.Second, func() { conn.Close() })
	} else {
		_ = conn.Close()
	}
	reading.Wait()
	return err
}

func (p *publisher) writeAll(ctx context.Context, conn net.Conn, inflight chan<- sent) error {
	out := bufio.NewWriterSize(conn, 32<<10)
	var payload, packet []byte
	topic := "telemetry/" + p.device + "/count"
	p.mu.Lock()
	n := p.first
	p.mu.Unlock()
	for i := 0; ctx.Err() == nil; n++ {
		p.mu.Lock()
		made := n < len(p.times)
		done := made && p.acked[n]
		p.mu.Unlock()
		if done {
			continue
		}
		if !made {
			if wait := p.early(); wait > 0 {
				if err := out.Flush(); err != nil {
					return err
				}
				select {
				case <-ctx.Done():
					return out.Flush()
				case <-time.After(wait):
				}
			}
			n = p.make()
		}
		select {
		case inflight <- sent{n, time.Now()}:
		default:
			if err := out.Flush(); err != nil {
				return err
			}
			select {
			case inflight <- sent{n, time.Now()}:
			case <-ctx.Done():
				return nil
			}
		}
		payload = p.payload(payload[:0], n)
		packet = appendPublish(packet[:0], topic, payload, 1, uint16(i%60000+1))
		i++
		if _, err := out.Write(packet); err != nil {
			return err
		}
	}
	return out.Flush()
}

// readAcks takes acknowledgements, which come in the order of the messages.
func (p *publisher) readAcks(conn net.Conn, inflight <-chan sent) error {
	in := bufio.NewReaderSize(conn, 4<<10)
	for i := 0; ; {
		if p.patience > 0 {
			_ = conn.SetReadDeadline(time.Now().Add(p.patience))
		}
		kind, body, err := readPacket(in)
		if err != nil {
			return err
		}
		if kind>>4 != 4 { // PUBACK
			continue
		}
		if id := binary.BigEndian.Uint16(body); int(id) != i%60000+1 {
			return fmt.Errorf("PUBACK of %d in place of %d", id, i%60000+1)
		}
		i++
		message, more := <-inflight
		if !more {
			return errors.New("PUBACK of nothing")
		}
		p.ack(message.n)
		p.mu.Lock()
		p.wait = max(p.wait, time.Since(message.at))
		p.mu.Unlock()
	}
}

// dialMQTT connects with MQTT 3.1.1 and a clean session. receive bounds the
// socket's buffers in bytes; 0 leaves them.
func dialMQTT(address, id string, receive int) (net.Conn, error) {
	return dialAs(address, id, "", "", receive)
}

// dialAs is dialMQTT with an account.
func dialAs(address, id, user, secret string, receive int) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", address, 2*time.Second)
	if err != nil {
		return nil, err
	}
	if receive > 0 {
		if c, ok := conn.(*net.TCPConn); ok {
			_ = c.SetReadBuffer(receive)
		}
	}
	body := []byte{0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0} // keep alive off
	words := []string{id}
	if user != "" {
		body[7] |= 0xc0
		words = append(words, user, secret)
	}
	for _, word := range words {
		body = binary.BigEndian.AppendUint16(body, uint16(len(word)))
		body = append(body, word...)
	}
	if _, err := conn.Write(append(appendLength([]byte{0x10}, len(body)), body...)); err != nil {
		conn.Close()
		return nil, err
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	var answer [4]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil || answer[3] != 0 {
		conn.Close()
		return nil, fmt.Errorf("CONNACK % x: %v", answer, err)
	}
	return conn, conn.SetReadDeadline(time.Time{})
}

func appendLength(dst []byte, n int) []byte {
	for n > 127 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}

func appendPublish(dst []byte, topic string, payload []byte, qos byte, id uint16) []byte {
	length := 2 + len(topic) + len(payload)
	if qos > 0 {
		length += 2
	}
	dst = appendLength(append(dst, 0x30|qos<<1), length)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(topic)))
	dst = append(dst, topic...)
	if qos > 0 {
		dst = binary.BigEndian.AppendUint16(dst, id)
	}
	return append(dst, payload...)
}

func appendSubscribe(dst []byte, filter string) []byte {
	dst = appendLength(append(dst, 0x82), 5+len(filter))
	dst = append(dst, 0, 1)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(filter)))
	return append(append(dst, filter...), 1)
}

// readPacket returns the first byte and the body of a packet.
func readPacket(in *bufio.Reader) (byte, []byte, error) {
	kind, err := in.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	length, shift := 0, 0
	for {
		b, err := in.ReadByte()
		if err != nil {
			return 0, nil, err
		}
		length |= int(b&0x7f) << shift
		if shift += 7; b < 0x80 {
			break
		}
		if shift > 21 {
			return 0, nil, errors.New("a length of more than four bytes")
		}
	}
	body := make([]byte, length)
	_, err = io.ReadFull(in, body)
	return kind, body, err
}

// publishers makes n publishers.
func publishers(n int) []*publisher {
	var out []*publisher
	for i := range n {
		out = append(out, newPublisher("count-"+strconv.Itoa(i)))
	}
	return out
}
