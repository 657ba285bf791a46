package console

import (
	"context"
	"errors"
	"net/http"
	"time"

	"haidang/gateway/telemetry"
)

// modbusTime bounds reading or writing by hand, which waits for a poll under way
// and for answers that do not come. It is within what a verb gives its question,
// and what the server gives an answer.
const modbusTime = 25 * time.Second

func (c *Console) modbusRoutes() []route {
	if c.sources.Modbus == nil {
		return nil
	}
	return []route{
		{"/api/v1/modbus/read", http.MethodPost, nil, c.modbus("read")},
		{"/api/v1/modbus/write", http.MethodPost, nil, c.modbus("write")},
	}
}

// modbus serves POST /api/v1/modbus/read and write. They reach into the field, so
// nobody is let in who has not said who he is: an administrator's account, or the
// control socket.
func (c *Console) modbus(act string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		account := telemetry.AccountOf(r.Context())
		if !isAdministrator(r) && (account == nil || account.Name == "") {
			return problemf(http.StatusForbidden, "", "instruments are read and written by hand with an administrator's account, or with haidang modbus on the gateway's own machine")
		}
		body, err := jsonBody(w, r)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(r.Context(), modbusTime)
		defer cancel()
		answer, err := c.sources.Modbus(ctx, act, body, actor(r, ""))
		switch {
		case errors.Is(err, ErrUnavailable):
			return problemf(http.StatusBadGateway, "", "%v", err)
		case err != nil:
			return problemf(http.StatusBadRequest, "", "%v", err)
		}
		return writeJSON(w, http.StatusOK, answer)
	}
}
