package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"haidang/drivers/modbus"
	"haidang/gateway/console"
	"haidang/gateway/telemetry"
)

// A modbusRequest is what POST /api/v1/modbus/read and write take.
type modbusRequest struct {
	Line string `json:"line"`
	Unit string `json:"unit"` // id, device, or modem/id

	// Read: registers as they stand, or without a table the values of the profile.
	Table string `json:"table,omitempty"`
	First int    `json:"first,omitempty"`
	Count int    `json:"count,omitempty"`

	// Write.
	Name   string   `json:"name,omitempty"`
	Number *float64 `json:"number,omitempty"`
	By     string   `json:"by,omitempty"`
}

// A modbusAnswer is what they answer.
type modbusAnswer struct {
	Hex    string        `json:"hex,omitempty"`    // of registers: as they came; of a write: what was sent
	Values []modbusValue `json:"values,omitempty"` // of a unit's profile
	Device string        `json:"device,omitempty"`

	ReadBack bool `json:"read_back,omitempty"` // a write was read back and is the same
}

// A modbusValue is one value that was read by hand.
type modbusValue struct {
	Value   string            `json:"value"` // kind.value
	Number  *float64          `json:"number,omitempty"`
	Text    string            `json:"text,omitempty"`
	Quality telemetry.Quality `json:"quality"`
}

// modbusByHand answers the API: it goes through the lines that run.
func (g *instance) modbusByHand(ctx context.Context, act string, body []byte, by string) (any, error) {
	var ask modbusRequest
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&ask); err != nil {
		return nil, fmt.Errorf("the body is not an object of line, unit and what is asked: %w", err)
	}
	if by != "" {
		ask.By = by
	}
	if g.machine != nil {
		return nil, fmt.Errorf("%w: the lines are polled by machines with the role ingest, which nobody can ask by hand", console.ErrUnavailable)
	}
	line, err := lineCalled(g.lines, ask.Line)
	if err != nil {
		return nil, err
	}
	if act == "write" {
		answer, err := askToWrite(ctx, line, &ask)
		if err == nil {
			g.record(auditEntry{By: ask.By, Do: "modbus.write", On: ask.Line + " " + ask.Unit, Changes: []string{fmt.Sprintf("%s: %v", ask.Name, *ask.Number)}})
		}
		return answer, err
	}
	return askToRead(ctx, line, &ask)
}

func lineCalled(lines []*modbus.Line, name string) (*modbus.Line, error) {
	var names []string
	for _, line := range lines {
		if line.Name() == name {
			return line, nil
		}
		names = append(names, line.Name())
	}
	if len(names) == 0 {
		return nil, errors.New("the gateway has no Modbus lines")
	}
	return nil, fmt.Errorf("there is no Modbus line %q; expected one of %s", name, strings.Join(names, ", "))
}

func askToRead(ctx context.Context, line *modbus.Line, ask *modbusRequest) (*modbusAnswer, error) {
	if ask.Table == "" {
		readings, err := line.Read(ctx, ask.Unit)
		if err != nil {
			return nil, fieldError(err)
		}
		return &modbusAnswer{Values: modbusValues(readings)}, nil
	}
	answer, err := line.Registers(ctx, modbus.Query{Unit: ask.Unit, Table: ask.Table, First: ask.First, Count: ask.Count})
	if err != nil {
		return nil, fieldError(err)
	}
	return &modbusAnswer{Hex: hex.EncodeToString(answer)}, nil
}

func modbusValues(readings []telemetry.Reading) []modbusValue {
	values := []modbusValue{}
	for i := range readings {
		for _, v := range readings[i].Values {
			row := modbusValue{Value: readings[i].Kind + "." + v.Name, Text: v.Text, Quality: v.Quality}
			if v.Text == "" {
				row.Number = &v.Number
			}
			values = append(values, row)
		}
	}
	return values
}

func askToWrite(ctx context.Context, line *modbus.Line, ask *modbusRequest) (*modbusAnswer, error) {
	if ask.Name == "" || ask.Number == nil {
		return nil, errors.New("name and number are missing: what is to be written")
	}
	done, err := line.Write(ctx, ask.Unit, ask.Name, *ask.Number, ask.By)
	if err != nil {
		return nil, fieldError(err)
	}
	return &modbusAnswer{Device: done.Device, Hex: hex.EncodeToString(done.Bytes), ReadBack: done.ReadBack}, nil
}

// fieldError tells an error of the instrument or its line from one of the
// request.
func fieldError(err error) error {
	if modbus.IsRequest(err) {
		return err
	}
	return &instrumentError{err}
}

// An instrumentError is of an instrument or its line.
type instrumentError struct{ cause error }

func (e *instrumentError) Error() string   { return e.cause.Error() }
func (e *instrumentError) Unwrap() []error { return []error{console.ErrUnavailable, e.cause} }
