package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

const (
	stationEvery   = 500 * time.Millisecond
	stationMemory  = 600 // readings that a station keeps: five minutes
	stationQuiesce = 100 // milliseconds for the last packet on leaving
	keepAlive      = 10 * time.Second
)

// A station measures twice a second and publishes with QoS 1, one message at a
// time. What is not acknowledged stays in its memory, in order, and is sent
// again; when the memory is full the oldest reading is lost and counted.
type station struct {
	broker  string // host:port
	id      string
	topic   string
	measure func(since time.Duration) map[string]any
	start   time.Time
	logger  *slog.Logger

	memory [][]byte
	lost   uint64
}

// stations returns the river and rain stations of the story.
func stations(broker string, s storm, start time.Time, logger *slog.Logger) []*station {
	var all []*station
	add := func(id, kind string, measure func(time.Duration) map[string]any) {
		all = append(all, &station{
			broker: broker, id: id, topic: "telemetry/" + id + "/" + kind,
			measure: measure, start: start, logger: logger,
		})
	}
	for _, id := range []string{kimLong, phuOc} {
		add(id, "river", func(since time.Duration) map[string]any {
			return map[string]any{"level_m": s.levelM(id, since)}
		})
	}
	for _, id := range []string{namDong, aLuoi} {
		add(id, "rain", func(since time.Duration) map[string]any {
			return map[string]any{
				"rain_1h_mm":    s.rain1hMM(id, since),
				"rain_24h_mm":   s.rain24hMM(id, since),
				"rain_gauge_mm": round(s.rainTotalMM(id, since), 10),
			}
		})
	}
	return all
}

// run measures and publishes until ctx ends, and connects again whenever the
// gateway is away.
func (st *station) run(ctx context.Context) error {
	client := mqtt.NewClient(st.options(ctx))
	client.Connect() // goes on trying by itself
	defer client.Disconnect(stationQuiesce)
	tick := time.NewTicker(stationEvery)
	defer tick.Stop()

	var sent mqtt.Token // the one message under way
	for {
		var acked <-chan struct{}
		if sent != nil {
			acked = sent.Done()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-acked:
			if sent.Error() == nil {
				st.memory = st.memory[1:]
			}
			sent = nil
		case at := <-tick.C:
			payload, err := st.payload(at)
			if err != nil {
				return err
			}
			st.remember(payload)
		}
		if sent == nil && len(st.memory) > 0 && client.IsConnectionOpen() {
			sent = client.Publish(st.topic, 1, false, st.memory[0])
		}
	}
}

// remember keeps a reading until it is acknowledged. The first of the memory may
// be under way: it is not the one to lose.
func (st *station) remember(payload []byte) {
	if len(st.memory) == stationMemory {
		st.memory = append(st.memory[:1], st.memory[2:]...)
		if st.lost%stationMemory == 0 {
			st.logger.Warn("a station's memory is full: its oldest readings are lost", "station", st.id, "lost_before", st.lost)
		}
		st.lost++
	}
	st.memory = append(st.memory, payload)
}

// payload returns what the station measures at an instant, with its time.
func (st *station) payload(at time.Time) ([]byte, error) {
	values := st.measure(at.Sub(st.start))
	values["time"] = at.UTC().Format(time.RFC3339Nano)
	payload, err := json.Marshal(values)
	if err != nil {
		return nil, fmt.Errorf("encode a reading of %s: %w", st.id, err)
	}
	return payload, nil
}

func (st *station) options(ctx context.Context) *mqtt.ClientOptions {
	dialer := net.Dialer{Timeout: dialTimeout}
	return mqtt.NewClientOptions().
		AddBroker("tcp://" + st.broker).
		SetClientID(st.id).
		SetCleanSession(true). // the memory of the station is its session
		SetKeepAlive(keepAlive).
		SetConnectRetry(true).
		SetConnectRetryInterval(redialAfter).
		SetAutoReconnect(true).
		SetMaxReconnectInterval(2 * time.Second).
		SetConnectTimeout(dialTimeout).
		SetWriteTimeout(writeTimeout).
		SetOrderMatters(false).
		// Straight to the broker: no proxy of the environment is asked.
		SetCustomOpenConnectionFn(func(broker *url.URL, _ mqtt.ClientOptions) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", broker.Host)
		}).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) {
			if ctx.Err() == nil {
				st.logger.Warn("a station lost the gateway and keeps its readings", "station", st.id, "error", err)
			}
		})
}
