package main

import (
	"errors"

	"github.com/hibiken/asynq"
)

type entryArgs struct {
	Spec string `json:"spec"`
	taskArgs
}

type schedulerArgs struct {
	HeartbeatInterval seconds     `json:"heartbeat_interval"`
	Entries           []entryArgs `json:"entries"`
}

// startScheduler answers the IDs of the entries, in the order they were given.
func (p *peer) startScheduler(a schedulerArgs) (any, error) {
	if p.scheduler != nil {
		return nil, errors.New("this process runs a scheduler already")
	}
	scheduler := asynq.NewScheduler(p.redis, &asynq.SchedulerOpts{
		HeartbeatInterval: a.HeartbeatInterval.duration(),
		LogLevel:          asynq.ErrorLevel,
	})
	ids := make([]string, 0, len(a.Entries))
	for _, entry := range a.Entries {
		id, err := scheduler.Register(entry.Spec, entry.task(), entry.options()...)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	if err := scheduler.Start(); err != nil {
		return nil, err
	}
	p.scheduler = scheduler
	return ids, nil
}

func (p *peer) stopScheduler(noArgs) (any, error) {
	if p.scheduler == nil {
		return nil, errors.New("this process runs no scheduler")
	}
	p.scheduler.Shutdown()
	p.scheduler = nil
	return nil, nil
}

type entryRow struct {
	ID       string   `json:"id"`
	Spec     string   `json:"spec"`
	TaskType string   `json:"task_type"`
	Payload  []byte   `json:"task_payload"`
	Options  []string `json:"options"` // those that asynq could parse back
	Next     *int64   `json:"next_ns"`
	Prev     *int64   `json:"prev_ns"`
}

func (p *peer) schedulerEntries(noArgs) (any, error) {
	entries, err := p.inspector.SchedulerEntries()
	if err != nil {
		return nil, err
	}
	return each(entries, func(e *asynq.SchedulerEntry) entryRow {
		return entryRow{
			e.ID, e.Spec, e.Task.Type(), e.Task.Payload(), each(e.Opts, asynq.Option.String),
			unixNano(e.Next), unixNano(e.Prev),
		}
	}), nil
}

type enqueueEventsArgs struct {
	EntryID string `json:"entry_id"`
}

type enqueueEventRow struct {
	TaskID     string `json:"task_id"`
	EnqueuedAt *int64 `json:"enqueued_at_ns"`
}

func (p *peer) enqueueEvents(a enqueueEventsArgs) (any, error) {
	events, err := p.inspector.ListSchedulerEnqueueEvents(a.EntryID)
	if err != nil {
		return nil, err
	}
	return each(events, func(e *asynq.SchedulerEnqueueEvent) enqueueEventRow {
		return enqueueEventRow{e.TaskID, unixNano(e.EnqueuedAt)}
	}), nil
}
