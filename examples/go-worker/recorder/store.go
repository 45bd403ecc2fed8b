package recorder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// Written is what became of records: they changed something, were known already, or came too late. Clamped of them
// were ahead of Redis's clock by more than MaxSkew, or expire a day that is not over by it.
type Written struct{ Changed, Unchanged, Late, Clamped int64 }

// write writes all records, one round trip per node and one more where a node has lost its scripts. It returns the
// projects that may not have been written in full; an error is no other project's. Writing them again is harmless.
func (r *Recorder) write(ctx context.Context, records []record, places map[string]string) (Written, map[string]error) {
	// A pipeline of its own for each node: what go-redis gives up in one it gives up as a whole.
	byPlace := map[string][]call{}
	for _, each := range r.options.calls(records) {
		byPlace[places[each.project]] = append(byPlace[places[each.project]], each)
	}
	var mu sync.Mutex
	var nodes sync.WaitGroup
	var written Written
	failed := map[string]error{}
	for _, wanted := range byPlace {
		nodes.Add(1)
		go func() {
			defer nodes.Done()
			replies, errs := r.ask(ctx, wanted)
			mu.Lock()
			defer mu.Unlock()
			for index, each := range wanted {
				if errs[index] != nil {
					failed[each.project] = errs[index]
				} else if sums, err := replies[index].Int64Slice(); err == nil && len(sums) == 4 {
					written.Changed += sums[0] // the other scripts answer one number
					written.Unchanged += sums[1]
					written.Late += sums[2]
					written.Clamped += sums[3]
				}
			}
		}()
	}
	nodes.Wait()
	return written, failed
}

// announce tells readers that projects changed. It comes when their records were answered, never before: a cluster does
// not keep the order of what is sent.
func (r *Recorder) announce(ctx context.Context, projects []string) error {
	args := make([]any, len(projects))
	for index, project := range projects {
		args[index] = project
	}
	var wanted []call
	for some := range slices.Chunk(args, mostAnnounced) {
		wanted = append(wanted, call{announce, "", []string{r.registryKey()}, some})
	}
	_, errs := r.ask(ctx, wanted)
	return errors.Join(errs...)
}

// registryKey is the key of the list of projects.
func (r *Recorder) registryKey() string { return r.options.Namespace + ":projects" }

// place is the node that has a key; all that is no cluster is one place.
func (r *Recorder) place(ctx context.Context, key string) (string, error) {
	cluster, isCluster := r.redis.(*redis.ClusterClient)
	if !isCluster {
		return "", nil
	}
	node, err := cluster.MasterForKey(ctx, key)
	if err != nil {
		return "", err
	}
	return node.Options().Addr, nil
}

// ask makes the calls in one pipeline. Where no connection could be made, go-redis tells it for the pipeline and not in
// the commands.
func (r *Recorder) ask(ctx context.Context, wanted []call) ([]*redis.Cmd, []error) {
	ctx, cancel := context.WithTimeout(ctx, r.options.Timeout)
	defer cancel()
	replies := make([]*redis.Cmd, len(wanted))
	pipe := r.redis.Pipeline()
	for index, each := range wanted {
		replies[index] = pipe.EvalSha(ctx, each.script.sha, each.keys, each.args...)
	}
	_, err := pipe.Exec(ctx)
	for index, reply := range replies {
		if redis.HasErrorPrefix(reply.Err(), "NOSCRIPT") {
			// The whole text goes along: SCRIPT LOAD names no key, so a cluster's client may take it to a wrong node.
			replies[index] = pipe.Eval(ctx, wanted[index].script.text, wanted[index].keys, wanted[index].args...)
		}
	}
	var again error
	if pipe.Len() > 0 {
		_, again = pipe.Exec(ctx)
	}
	r.bringContract(ctx, wanted, replies)
	errs := make([]error, len(wanted))
	for index, reply := range replies {
		if held, isRefused := otherContract(reply.Err()); isRefused {
			errs[index] = contractError{held}
			continue
		}
		if errs[index] = reply.Err(); errs[index] == nil && reply.Val() == nil {
			errs[index] = cmp.Or(again, err, errNoReply)
		}
	}
	return replies, errs
}

// bringContract makes the calls again that were refused because their project has no contract yet, with the ledger's.
func (r *Recorder) bringContract(ctx context.Context, wanted []call, replies []*redis.Cmd) {
	var contract *redis.StringCmd
	for index, reply := range replies {
		held, isRefused := otherContract(reply.Err())
		if !isRefused || held != "" {
			continue
		}
		if contract == nil {
			contract = r.redis.Get(ctx, r.options.Namespace+":contract")
		}
		if contract.Err() != nil {
			return // it stays refused, and says so
		}
		each := wanted[index]
		args := append([]any{contract.Val()}, each.args[1:]...)
		replies[index] = r.redis.Eval(ctx, each.script.text, each.keys, args...)
	}
}

// otherContract is the contract that a refused call found in its project, "" where it found none.
func otherContract(err error) (held string, isRefused bool) {
	var answer redis.Error
	if !errors.As(err, &answer) || !strings.HasPrefix(answer.Error(), "OQCONTRACT") {
		return "", false
	}
	return strings.TrimSpace(strings.TrimPrefix(answer.Error(), "OQCONTRACT")), true
}

// contractError says that the contract a call goes by is another one, or that there is none.
type contractError struct{ held string }

func (e contractError) Error() string {
	if e.held == "" {
		return "recorder: the ledger has no contract: begin it with `otel-queue ledger init`"
	}
	version, _, _ := strings.Cut(e.held, ";")
	return fmt.Sprintf("recorder: this ledger is of protocol %s, and this recorder speaks protocol %d: use the version "+
		"that wrote it, or begin a new one under another namespace with `otel-queue ledger init`", version, protocol)
}

// protocol is the version of docs/ledger-protocol.md that this package speaks.
const protocol = 2

var errNoReply = errors.New("recorder: a command has neither a reply nor an error")

// What Redis answers when it refuses the commands of every project.
var ofAll = []string{
	"NOAUTH", "WRONGPASS", "NOPERM", "LOADING", "READONLY", "NOREPLICAS", "MISCONF", "BUSY", "OOM", "EXECABORT", "MOVED",
	"ASK", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "ERR unknown command",
}

// isOfOneProject says whether Redis refused a call, perhaps because of what a project's keys hold.
func isOfOneProject(err error) bool {
	var other contractError
	if errors.As(err, &other) {
		return other.held != ""
	}
	var answer redis.Error
	if !errors.As(err, &answer) {
		return false
	}
	return !slices.ContainsFunc(ofAll, func(prefix string) bool { return strings.HasPrefix(answer.Error(), prefix) })
}
