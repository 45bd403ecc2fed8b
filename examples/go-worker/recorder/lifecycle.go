package recorder

import (
	"cmp"
	"fmt"
	"time"
	"unicode/utf8"
)

// EventCreated says that an event's row exists. Duplicates by idempotency key are events of their own.
type EventCreated struct {
	Project string
	EventID string
	At      time.Time
	Source  Label
}

// DeliveryCreated says that a delivery's row exists.
type DeliveryCreated struct {
	Project    string
	DeliveryID string
	Status     string // "" is scheduled, as rows are made
	At         time.Time
	Endpoint   Label
	EventType  Label
	Source     Label
	CreatedAt  time.Time // the row's created_at; zero where the hook does not know it
}

// StatusSet says that a delivery's status was written.
type StatusSet struct {
	Project    string
	DeliveryID string
	Status     string
	At         time.Time
	Endpoint   Label
	EventType  Label
	Source     Label
	CreatedAt  time.Time
}

// AttemptMade says that one HTTP call was made for a delivery.
type AttemptMade struct {
	Project   string
	AttemptID string
	At        time.Time
	Endpoint  Label
	Succeeded bool
	// HTTPStatus is the response's, as "200" or "200 OK"; "" without a response.
	HTTPStatus string
}

// ProjectDescribed says what a project is called now. Names are joined when counts are read, so a rename moves none.
type ProjectDescribed struct {
	Project          string
	At               time.Time
	ProjectName      string
	OrganisationID   string
	OrganisationName string
}

// DayExpired says that the rows of a project created on this UTC day (YYYYMMDD), and on all days before it, are gone.
type DayExpired struct {
	Project string
	Day     string
}

// record is one of the types above.
type record interface {
	// fault says why the record cannot be kept; "" if it can.
	fault() string
	project() string
}

func (of EventCreated) project() string     { return of.Project }
func (of DeliveryCreated) project() string  { return of.Project }
func (of StatusSet) project() string        { return of.Project }
func (of AttemptMade) project() string      { return of.Project }
func (of ProjectDescribed) project() string { return of.Project }
func (of DayExpired) project() string       { return of.Project }

// EventCreated records that an event's row exists.
func (r *Recorder) EventCreated(of EventCreated) {
	of.At = orNow(of.At)
	r.take(of)
}

// DeliveryCreated records that a delivery's row exists.
func (r *Recorder) DeliveryCreated(of DeliveryCreated) {
	of.At = orNow(of.At)
	if of.Status == "" {
		of.Status = "scheduled"
	}
	r.take(of)
}

// StatusSet records that a delivery's status was written. At is the row's updated_at, or else a time taken just
// before the write: the latest status wins, whichever record arrives first.
func (r *Recorder) StatusSet(of StatusSet) {
	of.At = orNow(of.At)
	r.take(of)
}

// AttemptMade records one HTTP call.
func (r *Recorder) AttemptMade(of AttemptMade) {
	of.At = orNow(of.At)
	r.take(of)
}

// ProjectDescribed records the names of a project.
func (r *Recorder) ProjectDescribed(of ProjectDescribed) {
	of.At = orNow(of.At)
	r.take(of)
}

// DayExpired records that days of a project are gone. What arrives for them later is counted as late. A day that is not
// over by Redis's clock is counted in Stats.Clamped, and nothing else.
func (r *Recorder) DayExpired(of DayExpired) {
	r.take(of)
}

func orNow(at time.Time) time.Time {
	if at.IsZero() {
		return time.Now()
	}
	return at
}

const (
	mostIDCharacters = 512
	// Other times are mistakes of unit, or a clock that was never set.
	firstTimeUs = 946_684_800_000_000   // 2000-01-01
	lastTimeUs  = 4_102_444_800_000_000 // 2100-01-01
)

func (of EventCreated) fault() string {
	return cmp.Or(idFault("project", of.Project), idFault("event", of.EventID), timeFault(of.At))
}

func (of DeliveryCreated) fault() string { return StatusSet(of).fault() }

func (of StatusSet) fault() string {
	if _, isKnown := rankOf(of.Status); !isKnown {
		return fmt.Sprintf("%q is no delivery status", clean(of.Status))
	}
	fault := cmp.Or(idFault("project", of.Project), idFault("delivery", of.DeliveryID), timeFault(of.At))
	if fault == "" && !of.CreatedAt.IsZero() {
		return timeFault(of.CreatedAt)
	}
	return fault
}

func (of AttemptMade) fault() string {
	return cmp.Or(idFault("project", of.Project), idFault("attempt", of.AttemptID), timeFault(of.At))
}

func (of ProjectDescribed) fault() string {
	return cmp.Or(idFault("project", of.Project), timeFault(of.At))
}

func (of DayExpired) fault() string {
	// Something else might sort after every date, and close all days for good.
	if _, err := time.Parse(dayForm, of.Day); err != nil {
		return fmt.Sprintf("day %q is not of the form YYYYMMDD", clean(of.Day))
	}
	return idFault("project", of.Project)
}

func idFault(of, id string) string {
	// An empty project would be an empty hash tag, and a cluster would spread its keys over the nodes.
	if characters := utf8.RuneCountInString(id); characters == 0 || characters > mostIDCharacters || !utf8.ValidString(id) {
		return fmt.Sprintf("%s %.80q is no id of 1 to %d characters", of, clean(id), mostIDCharacters)
	}
	return ""
}

func timeFault(at time.Time) string {
	if us := at.UnixMicro(); us < firstTimeUs || us >= lastTimeUs {
		return "its time is " + at.String()
	}
	return ""
}
