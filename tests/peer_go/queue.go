package main

import (
	"time"

	"github.com/hibiken/asynq"
)

func (p *peer) queues(noArgs) (any, error) {
	names, err := p.inspector.Queues()
	if err != nil {
		return nil, err
	}
	return each(names, func(name string) string { return name }), nil
}

type queueRow struct {
	Queue          string `json:"queue"`
	MemoryUsage    int64  `json:"memory_usage"`
	Latency        int64  `json:"latency_ns"`
	Size           int    `json:"size"`
	Groups         int    `json:"groups"`
	Pending        int    `json:"pending"`
	Active         int    `json:"active"`
	Scheduled      int    `json:"scheduled"`
	Retry          int    `json:"retry"`
	Archived       int    `json:"archived"`
	Completed      int    `json:"completed"`
	Aggregating    int    `json:"aggregating"`
	Processed      int    `json:"processed"`
	Failed         int    `json:"failed"`
	ProcessedTotal int    `json:"processed_total"`
	FailedTotal    int    `json:"failed_total"`
	Paused         bool   `json:"paused"`
	Timestamp      *int64 `json:"timestamp_ns"`
}

func (p *peer) queueInfo(a queueArgs) (any, error) {
	q, err := p.inspector.GetQueueInfo(a.Queue)
	if err != nil {
		return nil, err
	}
	return queueRow{
		Queue: q.Queue, MemoryUsage: q.MemoryUsage, Latency: q.Latency.Nanoseconds(), Size: q.Size,
		Groups: q.Groups, Pending: q.Pending, Active: q.Active, Scheduled: q.Scheduled, Retry: q.Retry,
		Archived: q.Archived, Completed: q.Completed, Aggregating: q.Aggregating,
		Processed: q.Processed, Failed: q.Failed, ProcessedTotal: q.ProcessedTotal, FailedTotal: q.FailedTotal,
		Paused: q.Paused, Timestamp: unixNano(q.Timestamp),
	}, nil
}

type historyArgs struct {
	queueArgs
	Days int `json:"days"`
}

type dayRow struct {
	Queue     string `json:"queue"`
	Day       string `json:"day"`
	Processed int    `json:"processed"`
	Failed    int    `json:"failed"`
}

func (p *peer) history(a historyArgs) (any, error) {
	days, err := p.inspector.History(a.Queue, a.Days)
	if err != nil {
		return nil, err
	}
	return each(days, func(d *asynq.DailyStats) dayRow {
		return dayRow{d.Queue, d.Date.UTC().Format(time.DateOnly), d.Processed, d.Failed}
	}), nil
}

type groupRow struct {
	Group string `json:"group"`
	Size  int    `json:"size"`
}

func (p *peer) groups(a queueArgs) (any, error) {
	groups, err := p.inspector.Groups(a.Queue)
	if err != nil {
		return nil, err
	}
	return each(groups, func(g *asynq.GroupInfo) groupRow { return groupRow{g.Group, g.Size} }), nil
}

func (p *peer) pauseQueue(a queueArgs) (any, error) { return nil, p.inspector.PauseQueue(a.Queue) }

func (p *peer) unpauseQueue(a queueArgs) (any, error) { return nil, p.inspector.UnpauseQueue(a.Queue) }

type deleteQueueArgs struct {
	queueArgs
	Force bool `json:"force"`
}

func (p *peer) deleteQueue(a deleteQueueArgs) (any, error) {
	return nil, p.inspector.DeleteQueue(a.Queue, a.Force)
}
