package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hibiken/asynq"
)

var (
	errHard = errors.New("the handler failed")
	errSoft = errors.New("not now")
)

// handler does what a task's type says before its first colon, so that "fail:webhook" fails:
// ok, result (writes the payload as the result), fail, skip_retry, revoke, soft, block (waits at the door).
func handler(door <-chan struct{}) asynq.Handler {
	return asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		behaviour, _, _ := strings.Cut(task.Type(), ":")
		switch behaviour {
		case "ok":
			return nil
		case "result":
			_, err := task.ResultWriter().Write(task.Payload())
			return err
		case "fail":
			return errHard
		case "skip_retry":
			return fmt.Errorf("%w: %w", errHard, asynq.SkipRetry)
		case "revoke":
			return asynq.RevokeTask
		case "soft":
			return errSoft
		case "block":
			select {
			case <-door:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return fmt.Errorf("no behaviour is named %q", behaviour)
	})
}
