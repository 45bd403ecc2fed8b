package main

import (
	"fmt"

	"github.com/hibiken/asynq"
)

type taskOptions struct {
	TaskID    *string  `json:"task_id"`
	Queue     *string  `json:"queue"`
	ProcessIn *seconds `json:"process_in"`
	ProcessAt *seconds `json:"process_at"`
	Unique    *seconds `json:"unique"`
	Group     *string  `json:"group"`
	Retention *seconds `json:"retention"`
	MaxRetry  *int     `json:"max_retry"`
	Timeout   *seconds `json:"timeout"`
	Deadline  *seconds `json:"deadline"`
}

// options lists what is set, in the order that a scheduler entry prints them.
func (o taskOptions) options() []asynq.Option {
	var options []asynq.Option
	if o.Queue != nil {
		options = append(options, asynq.Queue(*o.Queue))
	}
	if o.TaskID != nil {
		options = append(options, asynq.TaskID(*o.TaskID))
	}
	if o.Group != nil {
		options = append(options, asynq.Group(*o.Group))
	}
	if o.Timeout != nil {
		options = append(options, asynq.Timeout(o.Timeout.duration()))
	}
	if o.Unique != nil {
		options = append(options, asynq.Unique(o.Unique.duration()))
	}
	if o.MaxRetry != nil {
		options = append(options, asynq.MaxRetry(*o.MaxRetry))
	}
	if o.Deadline != nil {
		options = append(options, asynq.Deadline(o.Deadline.moment()))
	}
	if o.Retention != nil {
		options = append(options, asynq.Retention(o.Retention.duration()))
	}
	if o.ProcessIn != nil {
		options = append(options, asynq.ProcessIn(o.ProcessIn.duration()))
	}
	if o.ProcessAt != nil {
		options = append(options, asynq.ProcessAt(o.ProcessAt.moment()))
	}
	return options
}

type taskArgs struct {
	Type    string            `json:"type"`
	Payload []byte            `json:"payload"`
	Headers map[string]string `json:"headers"`
	taskOptions
}

func (a taskArgs) task() *asynq.Task { return asynq.NewTaskWithHeaders(a.Type, a.Payload, a.Headers) }

type taskRow struct {
	ID            string            `json:"id"`
	Queue         string            `json:"queue"`
	Type          string            `json:"type"`
	Payload       []byte            `json:"payload"`
	Headers       map[string]string `json:"headers"`
	State         string            `json:"state"`
	MaxRetry      int               `json:"max_retry"`
	Retried       int               `json:"retried"`
	LastErr       string            `json:"last_err"`
	LastFailedAt  *int64            `json:"last_failed_at_ns"`
	Timeout       float64           `json:"timeout_seconds"`
	Deadline      *int64            `json:"deadline_ns"`
	Group         string            `json:"group"`
	NextProcessAt *int64            `json:"next_process_at_ns"`
	IsOrphaned    bool              `json:"is_orphaned"`
	Retention     float64           `json:"retention_seconds"`
	CompletedAt   *int64            `json:"completed_at_ns"`
	Result        []byte            `json:"result"`
}

func newTaskRow(t *asynq.TaskInfo) taskRow {
	return taskRow{
		ID: t.ID, Queue: t.Queue, Type: t.Type, Payload: t.Payload, Headers: t.Headers, State: t.State.String(),
		MaxRetry: t.MaxRetry, Retried: t.Retried, LastErr: t.LastErr, LastFailedAt: unixNano(t.LastFailedAt),
		Timeout: t.Timeout.Seconds(), Deadline: unixNano(t.Deadline), Group: t.Group,
		NextProcessAt: unixNano(t.NextProcessAt), IsOrphaned: t.IsOrphaned,
		Retention: t.Retention.Seconds(), CompletedAt: unixNano(t.CompletedAt), Result: t.Result,
	}
}

func (p *peer) enqueue(a taskArgs) (any, error) {
	info, err := p.client.Enqueue(a.task(), a.options()...)
	if err != nil {
		return nil, err
	}
	return newTaskRow(info), nil
}

type taskIDArgs struct {
	Queue string `json:"queue"`
	ID    string `json:"id"`
}

func (p *peer) taskInfo(a taskIDArgs) (any, error) {
	info, err := p.inspector.GetTaskInfo(a.Queue, a.ID)
	if err != nil {
		return nil, err
	}
	return newTaskRow(info), nil
}

func (p *peer) runTask(a taskIDArgs) (any, error) { return nil, p.inspector.RunTask(a.Queue, a.ID) }

func (p *peer) archiveTask(a taskIDArgs) (any, error) {
	return nil, p.inspector.ArchiveTask(a.Queue, a.ID)
}

func (p *peer) deleteTask(a taskIDArgs) (any, error) {
	return nil, p.inspector.DeleteTask(a.Queue, a.ID)
}

type stateArgs struct {
	Queue string `json:"queue"`
	State string `json:"state"`
	Group string `json:"group"` // for the state aggregating only
}

type listArgs struct {
	stateArgs
	PageSize *int `json:"page_size"`
	Page     *int `json:"page"`
}

func (p *peer) listTasks(a listArgs) (any, error) {
	var options []asynq.ListOption
	if a.PageSize != nil {
		options = append(options, asynq.PageSize(*a.PageSize))
	}
	if a.Page != nil {
		options = append(options, asynq.Page(*a.Page))
	}
	type list func(string, ...asynq.ListOption) ([]*asynq.TaskInfo, error)
	lists := map[string]list{
		"pending":   p.inspector.ListPendingTasks,
		"active":    p.inspector.ListActiveTasks,
		"scheduled": p.inspector.ListScheduledTasks,
		"retry":     p.inspector.ListRetryTasks,
		"archived":  p.inspector.ListArchivedTasks,
		"completed": p.inspector.ListCompletedTasks,
		"aggregating": func(queue string, options ...asynq.ListOption) ([]*asynq.TaskInfo, error) {
			return p.inspector.ListAggregatingTasks(queue, a.Group, options...)
		},
	}
	run, known := lists[a.State]
	if !known {
		return nil, fmt.Errorf("list_tasks does not know state %q", a.State)
	}
	tasks, err := run(a.Queue, options...)
	if err != nil {
		return nil, err
	}
	return each(tasks, newTaskRow), nil
}

// bulk is one of the inspector's calls on every task of a state; it answers how many tasks it touched.
type bulk func(queue string) (int, error)

func (a stateArgs) bulk(calls map[string]bulk) (any, error) {
	run, known := calls[a.State]
	if !known {
		return nil, fmt.Errorf("this verb does not know state %q", a.State)
	}
	return run(a.Queue)
}

func (p *peer) runAll(a stateArgs) (any, error) {
	return a.bulk(map[string]bulk{
		"scheduled":   p.inspector.RunAllScheduledTasks,
		"retry":       p.inspector.RunAllRetryTasks,
		"archived":    p.inspector.RunAllArchivedTasks,
		"aggregating": func(q string) (int, error) { return p.inspector.RunAllAggregatingTasks(q, a.Group) },
	})
}

func (p *peer) archiveAll(a stateArgs) (any, error) {
	return a.bulk(map[string]bulk{
		"pending":     p.inspector.ArchiveAllPendingTasks,
		"scheduled":   p.inspector.ArchiveAllScheduledTasks,
		"retry":       p.inspector.ArchiveAllRetryTasks,
		"aggregating": func(q string) (int, error) { return p.inspector.ArchiveAllAggregatingTasks(q, a.Group) },
	})
}

func (p *peer) deleteAll(a stateArgs) (any, error) {
	return a.bulk(map[string]bulk{
		"pending":     p.inspector.DeleteAllPendingTasks,
		"scheduled":   p.inspector.DeleteAllScheduledTasks,
		"retry":       p.inspector.DeleteAllRetryTasks,
		"archived":    p.inspector.DeleteAllArchivedTasks,
		"completed":   p.inspector.DeleteAllCompletedTasks,
		"aggregating": func(q string) (int, error) { return p.inspector.DeleteAllAggregatingTasks(q, a.Group) },
	})
}
