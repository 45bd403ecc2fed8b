// A small asynq worker that records its deliveries in otel-queue's ledger.
//
//	go run . -redis redis://127.0.0.1:6379/0
//
// It enqueues tasks, processes them with different outcomes, and prints what it recorded. With -replay it records the
// lifecycle records on its standard input instead, one JSON object a line.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"os"
	"time"

	"github.com/redis/go-redis/v9"

	"example.com/otel-queue/go-worker/recorder"
)

func main() {
	log.SetFlags(0)
	queueURL := flag.String("redis", "redis://127.0.0.1:6379/0", "URL of asynq's Redis")
	ledgerURL := flag.String("ledger", "", "URL of the ledger's Redis; asynq's if empty")
	tasks := flag.Int("tasks", 8, "how many deliveries to enqueue and process")
	isCluster := flag.Bool("cluster", false, "the ledger's Redis is a Redis Cluster")
	isReplay := flag.Bool("replay", false, "record the JSON lines on standard input, without a queue")
	isLive := flag.Bool("live", false, "record those lines as they come, not so many together")
	flag.Parse()
	if *ledgerURL == "" {
		*ledgerURL = *queueURL
	}
	client, err := connect(*ledgerURL, *isCluster)
	if err != nil {
		log.Fatalf("-ledger: %v", err)
	}
	var recording recorder.Options
	if *isReplay && !*isLive {
		recording.Interval = time.Hour // see together
	}
	rec := recorder.New(client, recording)
	if *isReplay {
		err = replay(rec, os.Stdin, *isLive)
	} else {
		err = work(rec, *queueURL, *tasks)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if lost := rec.Close(ctx); err == nil {
		err = lost
	}
	_ = client.Close()
	_ = json.NewEncoder(os.Stdout).Encode(rec.Stats())
	if err != nil {
		log.Fatal(err)
	}
}

// connect makes a client for the ledger alone: a full or slow ledger must not stop the queue.
func connect(url string, isCluster bool) (redis.UniversalClient, error) {
	if isCluster {
		options, err := redis.ParseClusterURL(url)
		if err != nil {
			return nil, err
		}
		return redis.NewClusterClient(options), nil
	}
	options, err := redis.ParseURL(url)
	if err != nil {
		return nil, err
	}
	return redis.NewClient(options), nil
}
