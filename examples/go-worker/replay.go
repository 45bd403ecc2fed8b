package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"example.com/otel-queue/go-worker/recorder"
)

// As many as the recorder writes at once: what it writes then depends on the input alone, not on its pace.
const together = 2048

// line is a lifecycle record of any kind, with the names that the Python package uses. A label that is absent was not
// told, null is NULL.
type line struct {
	Kind             string          `json:"kind"`
	Project          string          `json:"project"`
	EventID          string          `json:"event_id"`
	DeliveryID       string          `json:"delivery_id"`
	AttemptID        string          `json:"attempt_id"`
	TimeUs           int64           `json:"time_us"`
	CreatedUs        *int64          `json:"created_us"`
	Endpoint         label           `json:"endpoint"`
	EventType        label           `json:"event_type"`
	Source           label           `json:"source"`
	Status           string          `json:"status"`
	Succeeded        bool            `json:"succeeded"`
	HTTPStatus       json.RawMessage `json:"http_status"` // a number, a text, or null
	ProjectName      string          `json:"project_name"`
	OrganisationID   string          `json:"organisation_id"`
	OrganisationName string          `json:"organisation_name"`
	Day              string          `json:"day"`
}

type label struct{ recorder.Label }

func (l *label) UnmarshalJSON(text []byte) error {
	if bytes.Equal(text, []byte("null")) {
		l.Label = recorder.Null()
		return nil
	}
	var told string
	err := json.Unmarshal(text, &told)
	l.Label = recorder.Told(told)
	return err
}

func replay(rec *recorder.Recorder, input io.Reader, isLive bool) error {
	lines := json.NewDecoder(bufio.NewReader(input))
	for number := 1; ; number++ {
		var of line
		if err := lines.Decode(&of); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("record %d: %w", number, err)
		}
		if err := of.record(rec); err != nil {
			return fmt.Errorf("record %d: %w", number, err)
		}
		if number%together == 0 && !isLive {
			if err := rec.Flush(context.Background()); err != nil {
				return err
			}
		}
	}
}

func (l line) record(rec *recorder.Recorder) error {
	at := time.UnixMicro(l.TimeUs)
	var createdAt time.Time
	if l.CreatedUs != nil {
		createdAt = time.UnixMicro(*l.CreatedUs)
	}
	switch l.Kind {
	case "event_created":
		rec.EventCreated(recorder.EventCreated{Project: l.Project, EventID: l.EventID, At: at, Source: l.Source.Label})
	case "delivery_created":
		rec.DeliveryCreated(recorder.DeliveryCreated(l.delivery(at, createdAt)))
	case "status_set":
		rec.StatusSet(l.delivery(at, createdAt))
	case "attempt_made":
		rec.AttemptMade(recorder.AttemptMade{
			Project: l.Project, AttemptID: l.AttemptID, At: at, Endpoint: l.Endpoint.Label,
			Succeeded: l.Succeeded, HTTPStatus: l.httpStatus(),
		})
	case "project_described":
		rec.ProjectDescribed(recorder.ProjectDescribed{
			Project: l.Project, At: at, ProjectName: l.ProjectName,
			OrganisationID: l.OrganisationID, OrganisationName: l.OrganisationName,
		})
	case "day_expired":
		rec.DayExpired(recorder.DayExpired{Project: l.Project, Day: l.Day})
	default:
		return fmt.Errorf("kind %q is not known", l.Kind)
	}
	return nil
}

func (l line) delivery(at, createdAt time.Time) recorder.StatusSet {
	return recorder.StatusSet{
		Project: l.Project, DeliveryID: l.DeliveryID, Status: l.Status, At: at, CreatedAt: createdAt,
		Endpoint: l.Endpoint.Label, EventType: l.EventType.Label, Source: l.Source.Label,
	}
}

func (l line) httpStatus() string {
	var text string
	if json.Unmarshal(l.HTTPStatus, &text) != nil {
		return string(l.HTTPStatus) // a number, as it is written
	}
	return text
}
