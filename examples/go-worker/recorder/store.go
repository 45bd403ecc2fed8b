package recorder

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"
)

// Written is what became of records: they changed something, were known already, or came too late. Clamped of them
// were ahead of Redis's clock by more than MaxSkew, or expire a day that is not over by it.
type Written struct{ Changed, Unchanged, Late, Clamped int64 }

// write writes all records in one round trip, and one more when Redis has lost its scripts. After an error any of
// them may be missing; writing them all again is harmless.
func (r *Recorder) write(ctx context.Context, records []record) (Written, error) {
	ctx, cancel := context.WithTimeout(ctx, r.options.Timeout)
	defer cancel()
	wanted := r.options.calls(records)
	registered := map[string]*redis.IntCmd{}
	replies := make([]*redis.Cmd, len(wanted))
	pipe := r.redis.Pipeline()
	for index, each := range wanted {
		if registered[each.project] == nil {
			// Every time, not cached: a set that was lost grows again.
			registered[each.project] = pipe.SAdd(ctx, r.options.Namespace+":projects", each.project)
		}
		replies[index] = pipe.EvalSha(ctx, each.script.sha, each.keys, each.args...)
	}
	if err := exec(ctx, pipe); err != nil {
		return Written{}, err
	}
	for index, reply := range replies {
		if redis.HasErrorPrefix(reply.Err(), "NOSCRIPT") {
			// The whole text goes along: SCRIPT LOAD names no key, so a cluster's client may take it to a wrong node.
			replies[index] = pipe.Eval(ctx, wanted[index].script.text, wanted[index].keys, wanted[index].args...)
		}
	}
	if pipe.Len() > 0 {
		if err := exec(ctx, pipe); err != nil {
			return Written{}, err
		}
	}
	for _, reply := range registered {
		if reply.Err() != nil {
			return Written{}, reply.Err()
		}
	}
	var written Written
	for _, reply := range replies {
		if reply.Err() != nil {
			return Written{}, reply.Err()
		}
		if reply.Val() == nil {
			return Written{}, errNoReply
		}
		if sums, err := reply.Int64Slice(); err == nil && len(sums) == 4 { // the other scripts answer one number
			written.Changed += sums[0]
			written.Unchanged += sums[1]
			written.Late += sums[2]
			written.Clamped += sums[3]
		}
	}
	return written, nil
}

var errNoReply = errors.New("recorder: a command has neither a reply nor an error")

// exec returns what keeps commands from being answered; what Redis answers stands with each command. Where no
// connection could be made, go-redis tells it here and not in the commands.
func exec(ctx context.Context, pipe redis.Pipeliner) error {
	var answer redis.Error
	if _, err := pipe.Exec(ctx); err != nil && !errors.As(err, &answer) {
		return err
	}
	return nil
}
