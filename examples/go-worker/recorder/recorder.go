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
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const batchRecords = 2048

// ErrClosed says that the recorder was closed before all was written.
var ErrClosed = errors.New("recorder: closed")

// Options of a Recorder; the zero value is fit for use.
type Options struct {
	Namespace   string        // of the ledger's keys; "oq" if ""
	MostRecords int           // that wait for Redis, and as many that it refused; more are dropped; 100,000 if 0
	Interval    time.Duration // the longest that a record waits for others; 200 ms if 0
	Timeout     time.Duration // of one round trip; 5 s if 0
	Logger      *slog.Logger  // slog.Default() if nil
}

// Stats count what became of records since New.
type Stats struct {
	Written
	Queued       int    // wait for Redis now
	Dropped      uint64 // had no room, or came after Close
	Invalid      uint64 // could not be kept: an unknown status, no project, a time out of range
	Unlabelled   uint64 // reports and tasks without what the middleware or Enqueue needs
	Failures     uint64 // of tries; their records stay queued
	Unregistered uint64 // failures of telling readers which projects changed; it is tried again
}

// Recorder queues records and writes them from a goroutine of its own. Recording costs an append, whatever Redis
// does. When the queue is full the newest records are dropped: what is queued first was acknowledged first.
//
// A project that cannot be written waits in a lane of its own, and all such lanes have room for MostRecords more. A second
// goroutine tries them again, so that they never hold up those that can be written. Readers are told of a project when
// its records were answered.
type Recorder struct {
	redis   redis.UniversalClient
	options Options

	mu          sync.Mutex
	queue       []item
	writing     int // have left the queue to be written
	lanes       *lanes
	unannounced map[string]struct{}
	registry    pause // of the list of projects
	epoch       uint64
	outstanding map[uint64]int // records by their epoch
	stats       Stats
	waiting     []waiter
	closed      bool
	isAbandoned bool

	wake    chan struct{} // there is a reason not to wait for the interval
	retry   chan struct{} // there is something to be tried again
	closing chan struct{}
	drained chan struct{}
	ended   chan struct{}
	abandon context.CancelFunc
}

// waiter waits until all records of an epoch and of those before it have been written.
type waiter struct {
	epoch uint64
	done  chan struct{}
}

// New starts a recorder for the ledger behind client. The client stays the caller's, to be closed after the recorder.
func New(client redis.UniversalClient, options Options) *Recorder {
	options.Namespace = cmp.Or(options.Namespace, "oq")
	options.MostRecords = cmp.Or(options.MostRecords, 100_000)
	options.Interval = cmp.Or(options.Interval, 200*time.Millisecond)
	options.Timeout = cmp.Or(options.Timeout, 5*time.Second)
	options.Logger = cmp.Or(options.Logger, slog.Default())
	ctx, abandon := context.WithCancel(context.Background())
	r := &Recorder{
		redis:       client,
		options:     options,
		lanes:       newLanes(options.MostRecords),
		unannounced: map[string]struct{}{},
		outstanding: map[uint64]int{},
		wake:        make(chan struct{}, 1),
		retry:       make(chan struct{}, 1),
		closing:     make(chan struct{}),
		drained:     make(chan struct{}),
		ended:       make(chan struct{}),
		abandon:     abandon,
	}
	go r.writeQueue(ctx)
	go r.tryAgain(ctx)
	return r
}

// Stats are the counts so far.
func (r *Recorder) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	stats := r.stats
	stats.Queued = r.queued()
	return stats
}

func (r *Recorder) queued() int {
	if r.isAbandoned {
		return 0
	}
	return len(r.queue) + r.writing + r.lanes.held
}

// Flush waits until everything recorded before it is in the ledger; an error says that ctx ended first.
func (r *Recorder) Flush(ctx context.Context) error {
	r.mu.Lock()
	of := waiter{r.epoch, make(chan struct{})}
	r.epoch++
	if r.left(of.epoch) == 0 {
		r.mu.Unlock()
		return nil
	}
	r.waiting = append(r.waiting, of)
	r.hurry()
	r.mu.Unlock()
	select {
	case <-of.done:
		return nil
	case <-r.ended:
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	left := r.left(of.epoch)
	if left == 0 {
		return nil
	}
	return fmt.Errorf("recorder: %d records are not in the ledger: %w", left, cmp.Or(ctx.Err(), ErrClosed))
}

// left is how many records of an epoch and of those before it are not written.
func (r *Recorder) left(epoch uint64) (left int) {
	for each, records := range r.outstanding {
		if each <= epoch {
			left += records
		}
	}
	return left
}

// Close flushes and ends the recorder. After an error what was still queued is lost, and counted as dropped. Close a
// recorder after the server whose handlers use it.
func (r *Recorder) Close(ctx context.Context) error {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.closing)
	}
	r.hurry()
	r.mu.Unlock()
	select {
	case <-r.ended:
	case <-ctx.Done():
	}
	r.abandon()
	r.mu.Lock()
	defer r.mu.Unlock()
	left := r.queued()
	if left == 0 {
		return nil
	}
	r.isAbandoned = true // the last write may still be at it
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
	case r.closed || len(r.queue)+r.writing >= r.options.MostRecords:
		r.stats.Dropped++
	default:
		r.queue = append(r.queue, item{of, r.epoch})
		r.outstanding[r.epoch]++
		if len(r.queue) >= batchRecords {
			signal(r.wake)
		}
	}
}

func (r *Recorder) countUnlabelled() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Unlabelled++
}

// hurry ends the pauses of those that wait.
func (r *Recorder) hurry() {
	r.lanes.hurry()
	r.registry.hurry()
	signal(r.wake)
	signal(r.retry)
}

func signal(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// writeQueue is the goroutine that writes what is not known to fail.
func (r *Recorder) writeQueue(ctx context.Context) {
	defer close(r.drained)
	interval := time.NewTicker(r.options.Interval)
	defer interval.Stop()
	closing := r.closing
	for ctx.Err() == nil {
		isDue, isLast := r.isDue()
		if isLast {
			return
		}
		if !isDue {
			select {
			case <-interval.C:
			case <-r.wake:
				continue
			case <-closing:
				closing = nil
				continue
			}
		}
		if items := r.oldest(); len(items) > 0 {
			r.writeOldest(ctx, items)
		}
	}
}

// isDue says whether to write now, and whether no more will come.
func (r *Recorder) isDue() (isDue, isLast bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	queued := len(r.queue)
	return queued >= batchRecords || queued > 0 && (r.closed || len(r.waiting) > 0), r.closed && queued == 0
}

// oldest takes the records to write next.
func (r *Recorder) oldest() []item {
	r.mu.Lock()
	defer r.mu.Unlock()
	some := min(batchRecords, len(r.queue))
	items := r.queue[:some:some]
	r.queue = r.queue[some:]
	r.writing = some
	return items
}

func (r *Recorder) writeOldest(ctx context.Context, items []item) {
	places := r.placesOf(ctx, items)
	var records []record
	var apart, tried []item
	r.mu.Lock()
	for _, each := range items {
		if project := each.project(); r.lanes.holds(project, places[project]) {
			apart = append(apart, each)
		} else {
			tried, records = append(tried, each), append(records, each.record)
		}
	}
	r.putApart(apart, places)
	r.mu.Unlock()
	written, failed := r.write(ctx, records, places)
	r.mu.Lock()
	if len(failed) > 0 {
		r.stats.Failures++
	}
	down, refused := r.lanes.fail(failed, places)
	var done []item
	apart = apart[:0]
	for _, each := range tried {
		if failed[each.project()] != nil {
			apart = append(apart, each)
		} else {
			done = append(done, each)
			r.unannounced[each.project()] = struct{}{}
		}
	}
	r.putApart(apart, places)
	r.tell(nil, down, refused)
	r.mu.Unlock()
	r.announceWritten(ctx, false)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writing = 0
	r.done(done, written)
	if len(r.lanes.byProject) > 0 || len(r.unannounced) > 0 {
		signal(r.retry)
	}
}

// putApart queues records in their projects' lanes.
func (r *Recorder) putApart(items []item, places map[string]string) {
	r.writing -= len(items)
	dropped := r.lanes.add(items, places)
	if !r.isAbandoned {
		r.stats.Dropped += uint64(len(dropped))
	}
	r.settled(dropped)
}

// tryAgain is the goroutine that tries what failed, until the queue is drained and nothing is left.
func (r *Recorder) tryAgain(ctx context.Context) {
	defer close(r.ended)
	drained := r.drained
	for {
		r.mu.Lock()
		due, isAny := r.lanes.nextDue()
		if len(r.unannounced) > 0 && (!isAny || r.registry.due.Before(due)) {
			due, isAny = r.registry.due, true
		}
		r.mu.Unlock()
		if !isAny && drained == nil {
			return
		}
		if left := time.Until(due); !isAny || left > 0 {
			var timer <-chan time.Time
			if isAny {
				timer = time.After(left)
			}
			select {
			case <-timer:
			case <-r.retry:
				continue
			case <-drained:
				drained = nil
				continue
			case <-ctx.Done():
				return
			}
		}
		if ctx.Err() != nil {
			return
		}
		r.writeFailing(ctx)
		r.announceWritten(ctx, true)
	}
}

func (r *Recorder) writeFailing(ctx context.Context) {
	r.mu.Lock()
	taken := r.lanes.take(batchRecords)
	r.mu.Unlock()
	if len(taken) == 0 {
		return
	}
	var items, done []item
	var records []record
	for _, each := range taken {
		items = append(items, each...)
	}
	for _, each := range items {
		records = append(records, each.record)
	}
	places := r.placesOf(ctx, items)
	written, failed := r.write(ctx, records, places)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(failed) > 0 {
		r.stats.Failures++
	}
	up, down, refused := r.lanes.settle(taken, failed, places)
	for project, each := range taken {
		if failed[project] == nil {
			done = append(done, each...)
			r.unannounced[project] = struct{}{}
		}
	}
	r.tell(up, down, refused)
	r.done(done, written)
}

// placesOf says which node has each project; "" where that cannot be told.
func (r *Recorder) placesOf(ctx context.Context, items []item) map[string]string {
	places := map[string]string{}
	for _, each := range items {
		project := each.project()
		if _, isKnown := places[project]; isKnown {
			continue
		}
		place, err := r.place(ctx, r.options.prefix(project))
		if err != nil {
			return map[string]string{} // no node tells: the next project would wait as long to learn it
		}
		places[project] = place
	}
	return places
}

// announceWritten tells readers of projects whose records were written. A failure holds up no records: it is tried again
// with those that failed.
func (r *Recorder) announceWritten(ctx context.Context, isRetry bool) {
	place, _ := r.place(ctx, r.registryKey())
	r.mu.Lock()
	fails := r.registry.length > 0 || r.lanes.down[place] != nil
	if len(r.unannounced) == 0 || fails && (!isRetry || r.registry.due.After(time.Now())) {
		r.mu.Unlock()
		return
	}
	projects := slices.Sorted(maps.Keys(r.unannounced))
	clear(r.unannounced)
	r.mu.Unlock()
	err := r.announce(ctx, projects)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.registry = pause{}
		return
	}
	for _, project := range projects {
		r.unannounced[project] = struct{}{}
	}
	r.stats.Unregistered++
	if r.registry.length == 0 {
		r.options.Logger.Warn("otel-queue: projects cannot be announced; records are written", "error", err)
	}
	r.registry.lengthen()
}

// done counts records that were written.
func (r *Recorder) done(items []item, written Written) {
	r.stats.Changed += written.Changed
	r.stats.Unchanged += written.Unchanged
	r.stats.Late += written.Late
	r.stats.Clamped += written.Clamped
	r.settled(items)
}

// settled takes records off those that Flush waits for.
func (r *Recorder) settled(items []item) {
	for _, each := range items {
		if r.outstanding[each.epoch]--; r.outstanding[each.epoch] == 0 {
			delete(r.outstanding, each.epoch)
		}
	}
	r.waiting = slices.DeleteFunc(r.waiting, func(of waiter) bool {
		isDone := r.left(of.epoch) == 0
		if isDone {
			close(of.done)
		}
		return isDone
	})
}

// tell logs what has changed: one line when it turns, not one for each try or project.
func (r *Recorder) tell(up []string, down, refused map[string]error) {
	for place, err := range down {
		r.options.Logger.Warn("otel-queue: the ledger cannot be written; records are queued", "node", place,
			"queued", r.queued(), "error", err)
	}
	for project, err := range refused {
		r.options.Logger.Warn("otel-queue: projects are refused and wait apart", "projects", len(refused),
			"one", project, "error", err)
		break
	}
	for _, place := range up {
		r.options.Logger.Info("otel-queue: the ledger is written again", "node", place)
	}
}
