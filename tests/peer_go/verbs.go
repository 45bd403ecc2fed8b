package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

type verb func(p *peer, args json.RawMessage) (any, error)

// verbs is everything a test may ask for.
var verbs = map[string]verb{
	"ping": with(func(p *peer, _ noArgs) (any, error) { return "pong", p.client.Ping() }),

	"enqueue":      with((*peer).enqueue),
	"task_info":    with((*peer).taskInfo),
	"list_tasks":   with((*peer).listTasks),
	"run_task":     with((*peer).runTask),
	"archive_task": with((*peer).archiveTask),
	"delete_task":  with((*peer).deleteTask),
	"run_all":      with((*peer).runAll),
	"archive_all":  with((*peer).archiveAll),
	"delete_all":   with((*peer).deleteAll),

	"queues":        with((*peer).queues),
	"queue_info":    with((*peer).queueInfo),
	"history":       with((*peer).history),
	"groups":        with((*peer).groups),
	"pause_queue":   with((*peer).pauseQueue),
	"unpause_queue": with((*peer).unpauseQueue),
	"delete_queue":  with((*peer).deleteQueue),

	"start_server": with((*peer).startServer),
	"quiet_server": with((*peer).quietServer),
	"stop_server":  with((*peer).stopServer),
	"release":      with((*peer).release),
	"servers":      with((*peer).servers),

	"start_scheduler":   with((*peer).startScheduler),
	"stop_scheduler":    with((*peer).stopScheduler),
	"scheduler_entries": with((*peer).schedulerEntries),
	"enqueue_events":    with((*peer).enqueueEvents),

	"bench_collect": with((*peer).benchCollect),
}

type noArgs struct{}

type queueArgs struct {
	Queue string `json:"queue"`
}

// with makes a verb of a method by decoding its arguments; an argument the method does not know is an error.
func with[A any](method func(*peer, A) (any, error)) verb {
	return func(p *peer, raw json.RawMessage) (any, error) {
		var args A
		if len(raw) > 0 {
			decoder := json.NewDecoder(bytes.NewReader(raw))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(&args); err != nil {
				return nil, fmt.Errorf("arguments: %w", err)
			}
		}
		return method(p, args)
	}
}

// seconds is how durations and moments arrive.
type seconds float64

func (s seconds) duration() time.Duration { return time.Duration(float64(s) * float64(time.Second)) }

func (s seconds) moment() time.Time { return time.Unix(0, int64(float64(s)*float64(time.Second))) }

// unixNano is how moments leave: nil for asynq's "never".
func unixNano(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	ns := t.UnixNano()
	return &ns
}

// each converts a list, so that an empty one leaves as [] and never as null.
func each[In, Out any](items []In, convert func(In) Out) []Out {
	converted := make([]Out, 0, len(items))
	for _, item := range items {
		converted = append(converted, convert(item))
	}
	return converted
}
