package recorder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestWhatRedisAnswersSaysWhoIsRefused(t *testing.T) {
	for answer, want := range map[error]bool{
		refusal("WRONGTYPE Operation against a key holding the wrong kind of value"): true,
		refusal("ERR user_script:12: attempt to index a nil value"):                  true,
		refusal("ERR unknown command 'EVALSHA'"):                                     false,
		refusal("OOM command not allowed when used memory > 'maxmemory'."):           false,
		refusal("READONLY You can't write against a read only replica."):             false,
		refusal("CLUSTERDOWN The cluster is down"):                                   false,
		fmt.Errorf("wrapped: %w", refusal("WRONGTYPE")):                              true,
		errDown:                                false,
		errNoReply:                             false,
		contractError{"3;1;1;00000000:;"}:      true,
		contractError{""}:                      false,
		fmt.Errorf("w: %w", contractError{""}): false,
	} {
		if got := isOfOneProject(answer); got != want {
			t.Errorf("%v: refused is one project: %v", answer, got)
		}
	}
}

func TestTheContractThatAProjectHasIsInTheRefusal(t *testing.T) {
	for _, of := range []struct {
		err       error
		held      string
		isRefused bool
	}{
		{refusal("OQCONTRACT 2;1;5;00000000:30:7:9;"), "2;1;5;00000000:30:7:9;", true},
		{refusal("OQCONTRACT "), "", true},
		{refusal("OQCONTRACT"), "", true},
		{refusal("WRONGTYPE"), "", false},
		{errors.New("OQCONTRACT 1;"), "", false}, // Redis did not say it
		{nil, "", false},
	} {
		if held, isRefused := otherContract(of.err); held != of.held || isRefused != of.isRefused {
			t.Errorf("%v: %q, %v", of.err, held, isRefused)
		}
	}
}

func TestARefusedContractSaysWhatToDo(t *testing.T) {
	for held, wanted := range map[string][]string{
		"":                              {"has no contract", "otel-queue ledger init"},
		"1;":                            {"of protocol 1", "speaks protocol 2", "under another namespace"},
		"3;1;5000000;00000000:30:7:10;": {"of protocol 3", "speaks protocol 2", "use the version that wrote it"},
	} {
		for _, words := range wanted {
			if said := (contractError{held}).Error(); !strings.Contains(said, words) {
				t.Errorf("%q: %s", held, said)
			}
		}
	}
}

func TestWhereNobodyListensEachProjectFails(t *testing.T) {
	r := unreachable(t, Options{})
	records := []record{
		EventCreated{Project: "a", EventID: "1"}, EventCreated{Project: "b", EventID: "2"},
		StatusSet{Project: "b", DeliveryID: "3", Status: "success"},
	}
	written, failed := r.write(context.Background(), records, map[string]string{"a": "one", "b": "two"})
	if written != (Written{}) || len(failed) != 2 || failed["a"] == nil || failed["b"] == nil {
		t.Errorf("%+v %v", written, failed)
	}
	for project, err := range failed {
		if isOfOneProject(err) {
			t.Errorf("%s was refused by nobody: %v", project, err)
		}
	}
	if err := r.announce(context.Background(), []string{"a"}); err == nil {
		t.Error("it was announced")
	}
}

// link passes bytes on to a Redis until it is cut; then it refuses and breaks connections.
type link struct {
	t     *testing.T
	to    string
	mu    sync.Mutex
	isCut bool
	ends  []net.Conn
	net.Listener
}

func newLink(t *testing.T, to string) *link {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{t: t, to: to, Listener: listener}
	t.Cleanup(func() { _ = listener.Close(); l.cut(true) })
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			l.pass(near)
		}
	}()
	return l
}

func (l *link) pass(near net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	far, err := net.Dial("tcp", l.to)
	if err != nil || l.isCut {
		_ = near.Close()
		return
	}
	l.ends = append(l.ends, near, far)
	for _, each := range [][2]net.Conn{{near, far}, {far, near}} {
		go func() {
			_, _ = io.Copy(each[0], each[1])
			_ = each[0].Close()
		}()
	}
}

func (l *link) cut(isCut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isCut = isCut
	for _, end := range l.ends {
		_ = end.Close()
	}
	l.ends = nil
}

// The same under the race detector is what this test is for: whatever the recorder shares is used here at once.
func TestRecordsOfManyGoroutinesAreEachCountedOnceThoughTheLinkBreaks(t *testing.T) {
	const writers, each = 8, 500
	address := os.Getenv("LEDGER_TEST_REDIS")
	if address == "" {
		t.Skip("LEDGER_TEST_REDIS is the host and port of an empty Redis with a begun ledger")
	}
	through := newLink(t, address)
	client := redis.NewClient(&redis.Options{Addr: through.Addr().String(), MaxRetries: -1})
	direct := redis.NewClient(&redis.Options{Addr: address})
	defer direct.Close()
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// This project is refused all the while, and costs the others nothing.
	if err := direct.Set(ctx, "oq:{refused}:meta", "no hash", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	r := New(client, Options{Interval: time.Millisecond, Timeout: time.Second, Logger: quiet})
	r.EventCreated(EventCreated{Project: "refused", EventID: "e"})
	var telling sync.WaitGroup
	for writer := range writers {
		telling.Add(1)
		go func() {
			defer telling.Done()
			for number := range each {
				r.EventCreated(EventCreated{Project: fmt.Sprint("p", writer%4), EventID: fmt.Sprint(writer, ":", number)})
				switch number {
				case each / 4:
					through.cut(writer%2 == 0)
				case each / 2:
					soon, stop := context.WithTimeout(ctx, time.Millisecond)
					_ = r.Flush(soon)
					stop()
				}
				_ = r.Stats()
			}
		}()
	}
	telling.Wait()
	through.cut(true)
	r.EventCreated(EventCreated{Project: "p0", EventID: "while the link is cut"})
	soon, stop := context.WithTimeout(ctx, 10*time.Millisecond)
	if err := r.Flush(soon); err == nil {
		t.Error("it was written through a link that is cut")
	}
	stop()
	through.cut(false)
	if err := direct.Del(ctx, "oq:{refused}:meta").Err(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	stats := r.Stats()
	if told := int64(writers*each + 2); stats.Changed+stats.Unchanged < told || stats.Dropped+stats.Invalid != 0 {
		t.Errorf("%+v of %d", stats, told)
	}
	if stats.Failures == 0 {
		t.Error("no write failed, so this shows nothing")
	}
	if listed := direct.ZCard(ctx, "oq:projects").Val(); listed != 5 {
		t.Errorf("%d projects were announced", listed)
	}
}
