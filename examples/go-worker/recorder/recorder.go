// Package recorder writes what happens to events and deliveries into otel-queue's ledger, from an asynq worker.
//
// The keys and the scripts are the protocol that otel-queue's exporter reads, and that its Python recorder writes
// too; any number of writers of both kinds may record the same things, in any order and more than once.
package recorder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	batchRecords = 2048
	firstPause   = 50 * time.Millisecond
	longestPause = 5 * time.Second
)

// ErrClosed says that the recorder was closed before all was written.
var ErrClosed = errors.New("recorder: closed")

// Options of a Recorder; the zero value is fit for use.
type Options struct {
	Namespace   string // of the ledger's keys; "oq" if ""
	Retention   Retention
	MostRecords int           // that wait for Redis; more are dropped and counted; 100,000 if 0
	Interval    time.Duration // the longest that a record waits for others; 200 ms if 0
	Timeout     time.Duration // of one round trip; 5 s if 0
	Logger      *slog.Logger  // slog.Default() if nil
}

// Stats count what became of records since New.
type Stats struct {
	Written
	Queued     int    // wait for Redis now
	Dropped    uint64 // had no room, or came after Close
	Invalid    uint64 // could not be kept: an unknown status, no project, a time out of range
	Unlabelled uint64 // reports and tasks without what the middleware or Enqueue needs
	Failures   uint64 // of round trips; their records stay queued
}

// Recorder queues records and writes them from a goroutine of its own. Recording costs an append, whatever Redis
// does. When the queue is full the newest records are dropped: what is queued first was acknowledged first.
type Recorder struct {
	redis   redis.UniversalClient
	options Options

	mu      sync.Mutex
	queue   []record
	first   uint64 // how many records have left the queue
	stats   Stats
	waiting []waiter
	closed  bool

	wake    chan struct{} // there is a reason not to wait for the interval
	closing chan struct{}
	ended   chan struct{}
	abandon context.CancelFunc
}

// waiter waits until so many records have left the queue.
type waiter struct {
	until uint64
	done  chan struct{}
}

// New starts a recorder for the ledger behind client. The client stays the caller's, to be closed after the recorder.
func New(client redis.UniversalClient, options Options) *Recorder {
	options.Namespace = cmp.Or(options.Namespace, "oq")
	options.Retention.TrackDays = cmp.Or(options.Retention.TrackDays, 30)
	options.Retention.AttemptDays = cmp.Or(options.Retention.AttemptDays, 7)
	options.Retention.MaxSkew = cmp.Or(options.Retention.MaxSkew, 5*time.Second)
	options.Retention.MostGroups = cmp.Or(options.Retention.MostGroups, 100_000)
	options.MostRecords = cmp.Or(options.MostRecords, 100_000)
	options.Interval = cmp.Or(options.Interval, 200*time.Millisecond)
	options.Timeout = cmp.Or(options.Timeout, 5*time.Second)
	options.Logger = cmp.Or(options.Logger, slog.Default())
	ctx, abandon := context.WithCancel(context.Background())
	r := &Recorder{
		redis:   client,
		options: options,
		wake:    make(chan struct{}, 1),
		closing: make(chan struct{}),
		ended:   make(chan struct{}),
		abandon: abandon,
	}
	go r.run(ctx)
	return r
}

// Stats are the counts so far.
func (r *Recorder) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	stats := r.stats
	stats.Queued = len(r.queue)
	return stats
}

// Flush waits until everything recorded before it is in the ledger; an error says that ctx ended first.
func (r *Recorder) Flush(ctx context.Context) error {
	r.mu.Lock()
	of := waiter{r.first + uint64(len(r.queue)), make(chan struct{})}
	if of.until == r.first {
		r.mu.Unlock()
		return nil
	}
	r.waiting = append(r.waiting, of)
	r.mu.Unlock()
	r.hurry()
	select {
	case <-of.done:
		return nil
	case <-r.ended:
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.first >= of.until {
		return nil
	}
	return fmt.Errorf("recorder: %d records are not in the ledger: %w", of.until-r.first, cmp.Or(ctx.Err(), ErrClosed))
}

// Close flushes and ends the recorder. After an error what was still queued is lost, and counted as dropped. Close a
// recorder after the server whose handlers use it.
func (r *Recorder) Close(ctx context.Context) error {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.closing)
	}
	r.mu.Unlock()
	select {
	case <-r.ended:
	case <-ctx.Done():
	}
	r.abandon()
	r.mu.Lock()
	defer r.mu.Unlock()
	left := len(r.queue)
	if left == 0 {
		return nil
	}
	r.queue = nil // not cleared: the last write may still be at it
	r.stats.Dropped += uint64(left)
	return fmt.Errorf("recorder: %d records are lost: %w", left, ctx.Err())
}

func (r *Recorder) take(of record) {
	fault := of.fault()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case fault != "":
		// Left out here: in a batch it would take the others down with it.
		if r.stats.Invalid++; r.stats.Invalid == 1 {
			r.options.Logger.Warn("otel-queue: a record cannot be kept; further ones are only counted", "fault", fault)
		}
	case r.closed || len(r.queue) >= r.options.MostRecords:
		r.stats.Dropped++
	default:
		r.queue = append(r.queue, of)
		if len(r.queue) >= batchRecords {
			r.hurry()
		}
	}
}

func (r *Recorder) countUnlabelled() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Unlabelled++
}

func (r *Recorder) hurry() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *Recorder) run(ctx context.Context) {
	defer close(r.ended)
	interval := time.NewTicker(r.options.Interval)
	defer interval.Stop()
	closing, pause := r.closing, firstPause
	for {
		records, isDue, isLast := r.oldest()
		if len(records) == 0 && isLast {
			return
		}
		if !isDue {
			select {
			case <-interval.C:
				records, _, _ = r.oldest()
			case <-r.wake:
				continue
			case <-closing:
				closing = nil
				continue
			}
		}
		if len(records) == 0 {
			continue
		}
		written, err := r.write(ctx, records)
		if err == nil {
			pause = firstPause
			r.done(len(records), written)
			continue
		}
		r.failed(err, pause == firstPause)
		select {
		case <-time.After(pause):
			pause = min(2*pause, longestPause)
		case <-closing:
			closing, pause = nil, firstPause
		case <-ctx.Done():
			return
		}
	}
}

// oldest are the records to write next, whether that should be now, and whether no more will come.
func (r *Recorder) oldest() (records []record, isDue, isLast bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	records = r.queue[:min(batchRecords, len(r.queue))]
	return records, len(records) == batchRecords || r.closed || len(r.waiting) > 0, r.closed
}

func (r *Recorder) done(records int, written Written) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Changed += written.Changed
	r.stats.Unchanged += written.Unchanged
	r.stats.Late += written.Late
	r.stats.Clamped += written.Clamped
	if r.queue == nil {
		return // Close has given them up
	}
	clear(r.queue[:records])
	r.queue = r.queue[records:]
	r.first += uint64(records)
	still := r.waiting[:0]
	for _, each := range r.waiting {
		if each.until <= r.first {
			close(each.done)
		} else {
			still = append(still, each)
		}
	}
	r.waiting = still
}

func (r *Recorder) failed(err error, isFirst bool) {
	r.mu.Lock()
	r.stats.Failures++
	queued := len(r.queue)
	r.mu.Unlock()
	if isFirst {
		r.options.Logger.Warn("otel-queue: the ledger cannot be written; records are queued", "queued", queued, "error", err)
	}
}
