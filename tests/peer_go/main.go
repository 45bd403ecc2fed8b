// Command asynqpeer drives the real asynq for tests written in another language.
//
// It reads one JSON command a line on stdin, {"verb": "queue_info", "args": {"queue": "default"}}, and answers
// each with one line on stdout: {"result": ...} or {"error": "text"}. It ends when stdin does. Inputs that are
// durations are seconds, inputs that are moments are Unix seconds; outputs carry their unit in the name.
// Bytes travel as base64, a null payload is a nil payload.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/hibiken/asynq"
)

// peer is one process's view of asynq: a client, an inspector, and at most one server and one scheduler.
type peer struct {
	redis     asynq.RedisConnOpt
	client    *asynq.Client
	inspector *asynq.Inspector
	server    *server
	scheduler *asynq.Scheduler
}

type command struct {
	Verb string          `json:"verb"`
	Args json.RawMessage `json:"args"`
}

type reply struct {
	Result any    `json:"result"`
	Error  string `json:"error,omitempty"`
}

func main() {
	redisURI := flag.String("redis", "redis://127.0.0.1:6379/0", "Redis URI as asynq parses it")
	flag.Parse()
	redis, err := asynq.ParseRedisURI(*redisURI)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	p := &peer{redis: redis, client: asynq.NewClient(redis), inspector: asynq.NewInspector(redis)}
	if err := p.serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serve answers commands in order until in ends.
func (p *peer) serve(in io.Reader, out io.Writer) error {
	commands, replies := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var c command
		if err := commands.Decode(&c); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("command is not JSON: %w", err)
		}
		var r reply
		result, err := p.answer(c)
		if err != nil {
			r.Error = err.Error()
		} else {
			r.Result = result
		}
		if err := replies.Encode(r); err != nil {
			return err
		}
	}
}

// answer runs one command. A panic inside asynq is an answer too: tests assert on it.
func (p *peer) answer(c command) (result any, err error) {
	defer func() {
		if x := recover(); x != nil {
			err = fmt.Errorf("panic: %v", x)
		}
	}()
	run, known := verbs[c.Verb]
	if !known {
		return nil, fmt.Errorf("unknown verb %q", c.Verb)
	}
	return run(p, c.Args)
}
