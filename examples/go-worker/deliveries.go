package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/oklog/ulid/v2"

	"example.com/otel-queue/go-worker/recorder"
)

const (
	project      = "shop"
	deliveryTask = "delivery"
)

// delivery is a task's payload. The task's id is the delivery's.
type delivery struct {
	URL string `json:"url"`
}

// outcomes are what the endpoints of this example do, one after the other: what they answer, and the status that the
// delivery gets.
var outcomes = []struct {
	endpoint, httpStatus, status string
}{
	{"orders", "200 OK", "success"},
	{"billing", "503 Service Unavailable", "retry"},
	{"stock", "", "failure"},     // no response
	{"archive", "", "discarded"}, // paused: no call at all
}

func work(rec *recorder.Recorder, redisURL string, tasks int) error {
	connection, err := asynq.ParseRedisURI(redisURL)
	if err != nil {
		return err
	}
	client := asynq.NewClient(connection)
	defer client.Close()
	rec.ProjectDescribed(recorder.ProjectDescribed{
		Project: project, ProjectName: "Shop", OrganisationID: "acme", OrganisationName: "Acme Inc.",
	})
	var handled sync.WaitGroup
	mux := asynq.NewServeMux()
	mux.Use(countdown(&handled), recorder.Middleware(rec))
	mux.HandleFunc(deliveryTask, deliver)
	server := asynq.NewServer(connection, asynq.Config{Concurrency: 4, LogLevel: asynq.WarnLevel})
	if err := server.Start(mux); err != nil {
		return err
	}
	// Before the recorder is closed, so that no handler reports to a closed one.
	defer server.Shutdown()
	for index := range tasks {
		handled.Add(1)
		if err := enqueue(rec, client, index); err != nil {
			return err
		}
	}
	handled.Wait()
	return nil
}

// countdown is outermost, so that it counts a task when all has been recorded.
func countdown(handled *sync.WaitGroup) asynq.MiddlewareFunc {
	return func(next asynq.Handler) asynq.Handler {
		return asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
			defer handled.Done()
			return next.ProcessTask(ctx, task)
		})
	}
}

// enqueue stands for the gateway's API: an event arrives, and one delivery of it is queued.
func enqueue(rec *recorder.Recorder, client *asynq.Client, index int) error {
	rec.EventCreated(recorder.EventCreated{Project: project, EventID: ulid.Make().String(), Source: recorder.Null()})
	endpoint := outcomes[index%len(outcomes)].endpoint
	id := ulid.Make().String()
	payload, err := json.Marshal(delivery{URL: "https://" + endpoint + ".example.com/hook"})
	if err != nil {
		return err
	}
	// A task is handled once here, whatever happens, so that the example comes to an end.
	task := recorder.NewTask(deliveryTask, payload, asynq.TaskID(id), asynq.MaxRetry(0))
	_, err = rec.Enqueue(context.Background(), client, task, recorder.TaskLabels{
		Project:    project,
		DeliveryID: id,
		Source:     recorder.Null(),
		Endpoint:   recorder.Told(endpoint),
		EventType:  recorder.Told("order.paid"),
	})
	return err
}

// deliver is a handler as a webhook gateway has it: a failed delivery is not an error of the task, so only the handler
// can say what happened.
func deliver(ctx context.Context, task *asynq.Task) error {
	var of delivery
	if err := json.Unmarshal(task.Payload(), &of); err != nil {
		return fmt.Errorf("payload of a delivery: %w", err)
	}
	labels, _ := recorder.LabelsOf(ctx)
	endpoint, _ := labels.Endpoint.Text()
	for _, will := range outcomes {
		if will.endpoint != endpoint {
			continue
		}
		if will.status != "discarded" {
			recorder.ReportStatus(ctx, "", "processing", time.Time{})
			// Here is the HTTP call to of.URL, and its row in the database.
			recorder.ReportAttempt(ctx, recorder.Attempt{ID: ulid.Make().String(), HTTPStatus: will.httpStatus})
		}
		recorder.ReportStatus(ctx, "", will.status, time.Time{})
	}
	return nil
}
