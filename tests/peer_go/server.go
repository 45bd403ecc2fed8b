package main

import (
	"errors"
	"os"
	"slices"
	"time"

	"github.com/hibiken/asynq"
)

// server is a running asynq server and the door its blocked handlers wait at.
type server struct {
	*asynq.Server
	door chan struct{}
}

type serverArgs struct {
	Queues         map[string]int `json:"queues"`
	Concurrency    int            `json:"concurrency"`
	StrictPriority bool           `json:"strict_priority"`

	RetryDelay               seconds `json:"retry_delay"`
	ShutdownTimeout          seconds `json:"shutdown_timeout"`
	TaskCheckInterval        seconds `json:"task_check_interval"`
	DelayedTaskCheckInterval seconds `json:"delayed_task_check_interval"`
	JanitorInterval          seconds `json:"janitor_interval"`

	// Aggregator is "" for none, "join" for a task of AggregatedType, "block" to wait at the door first.
	Aggregator        string      `json:"aggregator"`
	AggregatedType    string      `json:"aggregated_type"`
	AggregatedOptions taskOptions `json:"aggregated_options"`
	GroupGracePeriod  seconds     `json:"group_grace_period"`
	GroupMaxDelay     seconds     `json:"group_max_delay"`
	GroupMaxSize      int         `json:"group_max_size"`

	// SoftFailures makes the server's failure rule say no to errSoft.
	SoftFailures bool `json:"soft_failures"`
}

func (p *peer) startServer(a serverArgs) (any, error) {
	if p.server != nil {
		return nil, errors.New("this process runs a server already")
	}
	s := &server{door: make(chan struct{})}
	config := asynq.Config{
		Queues: a.Queues, Concurrency: a.Concurrency, StrictPriority: a.StrictPriority,
		ShutdownTimeout:          a.ShutdownTimeout.duration(),
		TaskCheckInterval:        a.TaskCheckInterval.duration(),
		DelayedTaskCheckInterval: a.DelayedTaskCheckInterval.duration(),
		JanitorInterval:          a.JanitorInterval.duration(),
		GroupGracePeriod:         a.GroupGracePeriod.duration(),
		GroupMaxDelay:            a.GroupMaxDelay.duration(),
		GroupMaxSize:             a.GroupMaxSize,
		LogLevel:                 asynq.ErrorLevel,
	}
	if a.RetryDelay > 0 {
		config.RetryDelayFunc = func(int, error, *asynq.Task) time.Duration { return a.RetryDelay.duration() }
	}
	if a.SoftFailures {
		config.IsFailure = func(err error) bool { return !errors.Is(err, errSoft) }
	}
	if a.Aggregator != "" {
		config.GroupAggregator = asynq.GroupAggregatorFunc(func(_ string, tasks []*asynq.Task) *asynq.Task {
			if a.Aggregator == "block" {
				<-s.door
			}
			payloads := slices.Concat(each(tasks, (*asynq.Task).Payload)...)
			return asynq.NewTask(a.AggregatedType, payloads, a.AggregatedOptions.options()...)
		})
	}
	s.Server = asynq.NewServer(p.redis, config)
	if err := s.Start(handler(s.door)); err != nil {
		return nil, err
	}
	p.server = s
	return os.Getpid(), nil
}

var errNoServer = errors.New("this process runs no server")

// quietServer stops taking tasks; the server stays alive in the state "stopped".
func (p *peer) quietServer(noArgs) (any, error) {
	if p.server == nil {
		return nil, errNoServer
	}
	p.server.Stop()
	return nil, nil
}

// stopServer is a clean shutdown: handlers get the shutdown timeout, then their tasks go back to pending.
func (p *peer) stopServer(noArgs) (any, error) {
	if p.server == nil {
		return nil, errNoServer
	}
	p.server.Shutdown()
	p.server = nil
	return nil, nil
}

// release opens the door for good: every blocked handler, and each one after it, succeeds.
func (p *peer) release(noArgs) (any, error) {
	if p.server == nil {
		return nil, errNoServer
	}
	close(p.server.door)
	return nil, nil
}

type workerRow struct {
	TaskID      string `json:"task_id"`
	TaskType    string `json:"task_type"`
	TaskPayload []byte `json:"task_payload"`
	Queue       string `json:"queue"`
	Started     *int64 `json:"started_ns"`
	Deadline    *int64 `json:"deadline_ns"`
}

type serverRow struct {
	ID             string         `json:"id"`
	Host           string         `json:"host"`
	PID            int            `json:"pid"`
	Concurrency    int            `json:"concurrency"`
	Queues         map[string]int `json:"queues"`
	StrictPriority bool           `json:"strict_priority"`
	Started        *int64         `json:"started_ns"`
	Status         string         `json:"status"`
	ActiveWorkers  []workerRow    `json:"active_workers"`
}

func (p *peer) servers(noArgs) (any, error) {
	servers, err := p.inspector.Servers()
	if err != nil {
		return nil, err
	}
	return each(servers, func(s *asynq.ServerInfo) serverRow {
		workers := each(s.ActiveWorkers, func(w *asynq.WorkerInfo) workerRow {
			return workerRow{w.TaskID, w.TaskType, w.TaskPayload, w.Queue, unixNano(w.Started), unixNano(w.Deadline)}
		})
		return serverRow{
			s.ID, s.Host, s.PID, s.Concurrency, s.Queues, s.StrictPriority, unixNano(s.Started), s.Status, workers,
		}
	}), nil
}
