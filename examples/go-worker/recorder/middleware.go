package recorder

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/oklog/ulid/v2"
)

// Headers that carry a task's labels from where it is enqueued to where it is processed. An absent header is a label
// that was not told, an empty one is NULL.
const (
	headerProject    = "oq-project"
	headerSource     = "oq-source"
	headerEndpoint   = "oq-endpoint"
	headerEventType  = "oq-event-type"
	headerEnqueuedAt = "oq-enqueued-at" // Unix microseconds
)

// TaskLabels are what is known of the delivery that a task is about.
type TaskLabels struct {
	Project   string
	Source    Label
	Endpoint  Label
	EventType Label
	// EnqueuedAt is set by Enqueue; zero in a task that came another way.
	EnqueuedAt time.Time
	// DeliveryID makes Enqueue record the delivery as created, for queues that have no database behind them. It does
	// not travel with the task.
	DeliveryID string
}

// Attempt is an HTTP call as its handler knows it.
type Attempt struct {
	// ID is that of the attempt's row, best a ULID, so that it is counted once however often it is reported; without
	// one every report is an attempt of its own.
	ID         string
	At         time.Time // now if zero
	Endpoint   Label     // the task's if not told
	HTTPStatus string    // as "200" or "200 OK", of which 2xx is a success; "" without a response
}

// NewTask is asynq.NewTask for tasks that Enqueue can label.
func NewTask(typename string, payload []byte, opts ...asynq.Option) *asynq.Task {
	return asynq.NewTaskWithHeaders(typename, payload, map[string]string{}, opts...)
}

// Enqueue labels a task made by NewTask and enqueues it. If that fails, nothing is recorded. A task without a map of
// headers is enqueued without labels, and counted: asynq shows nobody the options of a task, so it cannot be made anew.
func (r *Recorder) Enqueue(
	ctx context.Context, client *asynq.Client, task *asynq.Task, labels TaskLabels, opts ...asynq.Option,
) (*asynq.TaskInfo, error) {
	// Before the task can be seen: its handler may have set a status before this returns.
	labels.EnqueuedAt = time.Now()
	if headers := task.Headers(); headers != nil {
		labels.write(headers)
	} else {
		r.countUnlabelled()
	}
	info, err := client.EnqueueContext(ctx, task, opts...)
	if err == nil && labels.DeliveryID != "" {
		r.DeliveryCreated(DeliveryCreated{
			Project:    labels.Project,
			DeliveryID: labels.DeliveryID,
			At:         labels.EnqueuedAt,
			Endpoint:   labels.Endpoint,
			EventType:  labels.EventType,
			Source:     labels.Source,
		})
	}
	return info, err
}

// write puts what is told among the headers, and leaves the rest of them. Labels are cleaned first: protobuf, and so asynq, refuses broken UTF-8, and a
// label must not stop its task.
func (l TaskLabels) write(headers map[string]string) {
	for name, label := range map[string]Label{
		headerSource: l.Source, headerEndpoint: l.Endpoint, headerEventType: l.EventType,
	} {
		if label.told {
			headers[name] = clean(label.text)
		}
	}
	if l.Project != "" {
		headers[headerProject] = strings.ToValidUTF8(l.Project, "?")
	}
	headers[headerEnqueuedAt] = strconv.FormatInt(l.EnqueuedAt.UnixMicro(), 10)
}

func labelsOf(headers map[string]string) TaskLabels {
	told := func(name string) Label {
		text, told := headers[name]
		return Label{told, text}
	}
	labels := TaskLabels{
		Project:   headers[headerProject],
		Source:    told(headerSource),
		Endpoint:  told(headerEndpoint),
		EventType: told(headerEventType),
	}
	if us, err := strconv.ParseInt(headers[headerEnqueuedAt], 10, 64); err == nil {
		labels.EnqueuedAt = time.UnixMicro(us)
	}
	return labels
}

// task is what the middleware puts into a handler's context.
type task struct {
	recorder *Recorder
	labels   TaskLabels
	mu       sync.Mutex
	reports  []record
	isOver   bool
}

type taskKey struct{}

// Middleware makes a task's labels known to its handler, and records what the handler reported once it has returned
// or panicked. It does not look at the handler's error: a webhook gateway's handlers return nil for deliveries that
// failed, and an error for one that succeeded but could not be written down.
func Middleware(r *Recorder) asynq.MiddlewareFunc {
	return func(next asynq.Handler) asynq.Handler {
		return asynq.HandlerFunc(func(ctx context.Context, of *asynq.Task) error {
			running := &task{recorder: r, labels: labelsOf(of.Headers())}
			defer running.end()
			return next.ProcessTask(context.WithValue(ctx, taskKey{}, running), of)
		})
	}
}

// LabelsOf are the labels of the task whose handler has this context; false outside the middleware.
func LabelsOf(ctx context.Context) (TaskLabels, bool) {
	running, ok := ctx.Value(taskKey{}).(*task)
	if !ok {
		return TaskLabels{}, false
	}
	return running.labels, true
}

// ReportAttempt says that the handler with this context has made an HTTP call. False if that cannot be recorded: the
// context is not the middleware's, or the task names no project.
func ReportAttempt(ctx context.Context, of Attempt) bool {
	if of.ID == "" {
		of.ID = ulid.Make().String()
	}
	return report(ctx, func(labels TaskLabels) record {
		return AttemptMade{
			Project:    labels.Project,
			AttemptID:  of.ID,
			At:         orNow(of.At),
			Endpoint:   of.Endpoint.or(labels.Endpoint),
			Succeeded:  statusCode(of.HTTPStatus)[0] == '2',
			HTTPStatus: of.HTTPStatus,
		}
	})
}

// ReportStatus says that the handler with this context has written a delivery's status. A delivery without an id is
// the one with the task's. `at` is the row's updated_at, or a time taken just before the write; now if zero. False as
// for ReportAttempt.
func ReportStatus(ctx context.Context, deliveryID, status string, at time.Time) bool {
	at = orNow(at)
	if deliveryID == "" {
		deliveryID, _ = asynq.GetTaskID(ctx)
	}
	return report(ctx, func(labels TaskLabels) record {
		return StatusSet{
			Project:    labels.Project,
			DeliveryID: deliveryID,
			Status:     status,
			At:         at,
			Endpoint:   labels.Endpoint,
			EventType:  labels.EventType,
			Source:     labels.Source,
		}
	})
}

func report(ctx context.Context, recordOf func(TaskLabels) record) bool {
	running, ok := ctx.Value(taskKey{}).(*task)
	if !ok {
		return false
	}
	if running.labels.Project == "" {
		running.recorder.countUnlabelled()
		return false
	}
	of := recordOf(running.labels)
	running.mu.Lock()
	defer running.mu.Unlock()
	if running.isOver { // told by a goroutine that outlives its handler
		running.recorder.take(of)
	} else {
		running.reports = append(running.reports, of)
	}
	return true
}

func (t *task) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.isOver = true
	for _, of := range t.reports {
		t.recorder.take(of)
	}
}
