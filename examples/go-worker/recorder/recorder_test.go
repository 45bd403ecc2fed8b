package recorder

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// refusing is the address of a port where nobody listens.
func refusing(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// unreachable is a recorder whose Redis refuses connections; it writes nothing before it is closed.
func unreachable(t *testing.T, options Options) *Recorder {
	client := redis.NewClient(&redis.Options{Addr: refusing(t), MaxRetries: -1})
	options.Interval = time.Hour
	options.Logger = quiet
	r := New(client, options)
	t.Cleanup(func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.Close(ended)
		_ = client.Close()
	})
	return r
}

func TestWhatHasNoRoomIsDroppedAndCounted(t *testing.T) {
	r := unreachable(t, Options{MostRecords: 10})
	for range 15 {
		r.EventCreated(EventCreated{Project: "p", EventID: "e"})
	}
	if stats := r.Stats(); stats.Queued != 10 || stats.Dropped != 5 {
		t.Fatalf("%+v", stats)
	}
}

func TestFlushSaysThatTheLedgerDoesNotHaveIt(t *testing.T) {
	r := unreachable(t, Options{})
	r.EventCreated(EventCreated{Project: "p", EventID: "e"})
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Flush(ended); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	if stats := r.Stats(); stats.Queued != 1 {
		t.Fatalf("what could not be flushed is still to be written: %+v", stats)
	}
}

func TestCloseCountsWhatIsLost(t *testing.T) {
	r := unreachable(t, Options{})
	r.EventCreated(EventCreated{Project: "p", EventID: "e"})
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Close(ended); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	r.EventCreated(EventCreated{Project: "p", EventID: "too late"})
	if stats := r.Stats(); stats.Queued != 0 || stats.Dropped != 2 {
		t.Fatalf("%+v", stats)
	}
}

func TestARecordThatCannotBeKeptIsCountedAndLeftOut(t *testing.T) {
	r := unreachable(t, Options{})
	r.StatusSet(StatusSet{Project: "p", DeliveryID: "d", Status: "lost"})
	r.StatusSet(StatusSet{DeliveryID: "d", Status: "success"})
	r.StatusSet(StatusSet{Project: "p", DeliveryID: "d", Status: "success", At: time.Unix(1_767_225_600_000, 0)})
	r.DeliveryCreated(DeliveryCreated{Project: "p", DeliveryID: "d", CreatedAt: time.UnixMicro(0)})
	r.EventCreated(EventCreated{Project: "p"})
	r.AttemptMade(AttemptMade{Project: "p", AttemptID: strings.Repeat("a", 513)})
	r.AttemptMade(AttemptMade{Project: "\xff", AttemptID: "a"})
	r.DayExpired(DayExpired{Project: "p", Day: undated})
	r.DayExpired(DayExpired{Project: "p", Day: "20260230"})
	if stats := r.Stats(); stats.Invalid != 9 || stats.Queued != 0 {
		t.Fatalf("%+v", stats)
	}
}

func TestLabelsTravelInHeaders(t *testing.T) {
	sent := TaskLabels{
		Project: "p", Source: Null(), Endpoint: Told("E1"), EnqueuedAt: time.UnixMicro(1_767_225_600_000_001),
	}
	headers := map[string]string{"other": "stays"}
	sent.write(headers)
	if got := labelsOf(headers); !reflect.DeepEqual(got, sent) {
		t.Fatalf("%+v", got)
	}
	if _, isTold := headers[headerEventType]; isTold || headers["other"] != "stays" {
		t.Fatalf("%v", headers)
	}
}

func TestLabelsInHeadersAreTextThatAsynqTakes(t *testing.T) {
	headers := map[string]string{}
	TaskLabels{Project: "p\xff", Endpoint: Told("a\x00\xffb" + strings.Repeat("ü", 300))}.write(headers)
	if headers[headerProject] != "p?" || headers[headerEndpoint] != "a??b"+strings.Repeat("ü", 252) {
		t.Fatalf("%q", headers)
	}
}

func TestATaskThatCannotBeEnqueuedIsNotRecorded(t *testing.T) {
	r := unreachable(t, Options{})
	client := asynq.NewClient(asynq.RedisClientOpt{Addr: refusing(t)})
	defer client.Close()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	labels := TaskLabels{Project: "p", DeliveryID: "d"}
	if _, err := r.Enqueue(ended, client, NewTask("t", nil), labels); err == nil {
		t.Fatal("it was enqueued")
	}
	if stats := r.Stats(); stats.Queued != 0 {
		t.Fatalf("%+v", stats)
	}
}

// labelled is a task as a server hands it to its handlers.
func labelled(labels TaskLabels) *asynq.Task {
	task := NewTask("t", nil)
	labels.write(task.Headers())
	return task
}

func TestReportsAreRecordedWhenTheirHandlerHasReturned(t *testing.T) {
	r := unreachable(t, Options{})
	at := time.UnixMicro(1_767_225_600_000_001)
	of := asynq.HandlerFunc(func(ctx context.Context, _ *asynq.Task) error {
		ReportAttempt(ctx, Attempt{ID: "a", HTTPStatus: "204 No Content"})
		ReportStatus(ctx, "d", "failure", at)
		if queued := r.Stats().Queued; queued != 0 {
			t.Errorf("%d are recorded already", queued)
		}
		return nil // as a gateway's handler does
	})
	task := labelled(TaskLabels{Project: "p", Endpoint: Told("E1"), Source: Null()})
	if err := Middleware(r)(of).ProcessTask(context.Background(), task); err != nil {
		t.Fatal(err)
	}
	attempt, isAttempt := r.queue[0].record.(AttemptMade)
	if !isAttempt || attempt.Endpoint != Told("E1") || attempt.AttemptID != "a" || !attempt.Succeeded {
		t.Fatalf("%+v", r.queue)
	}
	want := StatusSet{
		Project: "p", DeliveryID: "d", Status: "failure", At: at, Endpoint: Told("E1"), Source: Null(),
	}
	if r.queue[1].record != record(want) {
		t.Fatalf("%+v", r.queue[1])
	}
}

func TestReportsOfAHandlerThatPanicsAreRecorded(t *testing.T) {
	r := unreachable(t, Options{})
	of := asynq.HandlerFunc(func(ctx context.Context, _ *asynq.Task) error {
		ReportAttempt(ctx, Attempt{ID: "a"})
		panic("after the call was made")
	})
	func() {
		defer func() { _ = recover() }()
		_ = Middleware(r)(of).ProcessTask(context.Background(), labelled(TaskLabels{Project: "p"}))
	}()
	if stats := r.Stats(); stats.Queued != 1 {
		t.Fatalf("%+v", stats)
	}
}

func TestAReportWithoutAProjectIsCounted(t *testing.T) {
	r := unreachable(t, Options{})
	of := asynq.HandlerFunc(func(ctx context.Context, _ *asynq.Task) error {
		if ReportStatus(ctx, "d", "success", time.Time{}) {
			t.Error("it said that it is recorded")
		}
		return nil
	})
	if err := Middleware(r)(of).ProcessTask(context.Background(), asynq.NewTask("t", nil)); err != nil {
		t.Fatal(err)
	}
	if stats := r.Stats(); stats.Unlabelled != 1 || stats.Queued != 0 {
		t.Fatalf("%+v", stats)
	}
}

func TestAReportOutsideTheMiddlewareIsRefused(t *testing.T) {
	if ReportAttempt(context.Background(), Attempt{ID: "a"}) {
		t.Fatal("it said that it is recorded")
	}
}
