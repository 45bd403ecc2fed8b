package main

import "time"

type benchArgs struct {
	Rounds int `json:"rounds"`
}

type benchRow struct {
	Queues    int     `json:"queues"`
	Durations []int64 `json:"durations_ns"`
}

// benchCollect times what asynq's own Prometheus collector does for one scrape: it asks for the names of the
// queues, then for each queue's info, one after the other.
func (p *peer) benchCollect(a benchArgs) (any, error) {
	row := benchRow{Durations: make([]int64, 0, a.Rounds)}
	for range a.Rounds {
		start := time.Now()
		names, err := p.inspector.Queues()
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if _, err := p.inspector.GetQueueInfo(name); err != nil {
				return nil, err
			}
		}
		row.Durations = append(row.Durations, time.Since(start).Nanoseconds())
		row.Queues = len(names)
	}
	return row, nil
}
