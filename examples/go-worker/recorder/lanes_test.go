package recorder

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// refusal is an error that Redis answered.
type refusal string

func (r refusal) Error() string { return string(r) }
func (refusal) RedisError()     {}

var (
	errDown    = errors.New("connection refused")
	errRefused = refusal("WRONGTYPE Operation against a key holding the wrong kind of value")
)

// items are so many records of each project, numbered from 0: "a:3 b:1".
func items(counts string) (made []item) {
	for _, each := range strings.Fields(counts) {
		project, many, _ := strings.Cut(each, ":")
		var count int
		_, _ = fmt.Sscan(many, &count)
		for number := range count {
			made = append(made, item{record: EventCreated{Project: project, EventID: fmt.Sprint(number)}})
		}
	}
	return made
}

// idsOf are the ids of records, in their order.
func idsOf(of []item) string {
	ids := make([]string, len(of))
	for index, each := range of {
		ids[index] = each.record.(EventCreated).EventID
	}
	return strings.Join(ids, " ")
}

// ids are what waits in each lane.
func (l *lanes) ids() map[string]string {
	found := map[string]string{}
	for project, held := range l.byProject {
		found[project] = idsOf(held.items)
	}
	return found
}

// waiting are lanes that hold so many records of each project, which are all due.
func waiting(counts string) *lanes {
	l := newLanes(1000)
	l.add(items(counts), nil)
	for _, held := range l.byProject {
		held.pause.length = firstPause
	}
	return l
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestAPauseDoublesFrom50msTo5sAndBeginsAnewAfterHurry(t *testing.T) {
	var p pause
	var lengths []time.Duration
	for range 9 {
		before := time.Now()
		p.lengthen()
		if p.due.Before(before.Add(p.length)) {
			t.Errorf("it is due before its %v are over", p.length)
		}
		lengths = append(lengths, p.length/time.Millisecond)
	}
	same(t, "milliseconds", lengths, []time.Duration{50, 100, 200, 400, 800, 1600, 3200, 5000, 5000})
	p.hurry()
	if !p.due.IsZero() || p.length == 0 {
		t.Errorf("it is due at once, and its last try failed: %+v", p)
	}
	p.lengthen()
	same(t, "the next pause", p.length, firstPause)
}

func TestEachProjectHasALaneThatKeepsTheOrder(t *testing.T) {
	l := newLanes(1000)
	if dropped := l.add(items("a:2 b:1"), nil); dropped != nil {
		t.Errorf("dropped %v", dropped)
	}
	l.add([]item{{record: EventCreated{Project: "a", EventID: "later"}}}, nil)
	same(t, "lanes", l.ids(), map[string]string{"a": "0 1 later", "b": "0"})
	same(t, "held", l.held, 4)
	for project, want := range map[string]bool{"a": true, "b": true, "c": false} {
		same(t, "holds "+project, l.holds(project, "node"), want)
	}
}

func TestProjectsOfANodeThatIsDownShareOnePause(t *testing.T) {
	l := newLanes(1000)
	places := map[string]string{"a": "one", "b": "one", "c": "two", "later": "one"}
	down, refused := l.fail(map[string]error{"a": errDown, "b": errDown, "c": errDown}, places)
	same(t, "down", down, map[string]error{"one": errDown, "two": errDown})
	same(t, "refused", refused, map[string]error{})
	l.add(items("later:1"), places)
	shared := l.byProject["a"].pause
	if l.byProject["b"].pause != shared || l.byProject["later"].pause != shared || l.byProject["c"].pause == shared {
		t.Error("a node has one pause, and each node its own")
	}
	same(t, "after two failures in one try", shared.length, firstPause)
	if !l.holds("unknown", "one") || l.holds("unknown", "three") {
		t.Error("no other project is tried on a node that is down")
	}
	down, _ = l.fail(map[string]error{"b": errDown}, places)
	same(t, "told again", down, map[string]error{})
	same(t, "after the second try", l.byProject["a"].pause.length, 2*firstPause)
}

func TestARefusedProjectWaitsByItselfAndIsToldOnce(t *testing.T) {
	l := newLanes(1000)
	places := map[string]string{"a": "one", "b": "one"}
	l.fail(map[string]error{"a": errDown, "b": errDown}, places)
	// The node is back, and refuses one of its projects.
	down, refused := l.fail(map[string]error{"a": errRefused}, places)
	same(t, "down", down, map[string]error{})
	same(t, "refused", refused, map[string]error{"a": errRefused})
	if l.byProject["a"].pause == l.byProject["b"].pause {
		t.Error("a refused project holds up the others of its node")
	}
	same(t, "the node's pause", l.byProject["b"].pause.length, firstPause)
	_, refused = l.fail(map[string]error{"a": errRefused}, places)
	same(t, "told again", refused, map[string]error{})
	same(t, "its pause", l.byProject["a"].pause.length, 2*firstPause)
}

func TestLanesThatAreDueShareATryEvenly(t *testing.T) {
	for _, of := range []struct {
		name      string
		lanes     string
		succeeded string // whose last try succeeded
		notDue    string
		most      int
		want      map[string]int
	}{
		{"all of one", "a:3", "", "", 10, map[string]int{"a": 3}},
		{"no more than wanted", "a:30", "", "", 10, map[string]int{"a": 10}},
		{"an even part of each", "a:30 b:30 c:2", "", "", 12, map[string]int{"a": 4, "b": 4, "c": 2}},
		{"one that is not due waits", "a:30 b:30", "", "b", 10, map[string]int{"a": 10}},
		{"nothing is due", "a:30", "", "a", 10, map[string]int{}},
		{"what succeeds does not wait for what fails", "a:30 b:30", "a", "", 10, map[string]int{"a": 10}},
		{"what succeeds is due", "a:30 b:30", "a", "a b", 10, map[string]int{"a": 10}},
	} {
		t.Run(of.name, func(t *testing.T) {
			l := waiting(of.lanes)
			for _, project := range strings.Fields(of.succeeded) {
				l.byProject[project].pause.length = 0
			}
			for _, project := range strings.Fields(of.notDue) {
				l.byProject[project].pause.due = time.Now().Add(time.Hour)
			}
			held := l.held
			taken := map[string]int{}
			for project, some := range l.take(of.most) {
				taken[project] = len(some)
				same(t, "the oldest of "+project, some[0].record.(EventCreated).EventID, "0")
			}
			same(t, "taken", taken, of.want)
			same(t, "held until it is settled", l.held, held)
		})
	}
}

func TestMoreLanesThanATryHasRoomForTakeOneRecordEach(t *testing.T) {
	l := waiting("a:2 b:2 c:2 d:2")
	taken := l.take(3)
	same(t, "lanes", len(taken), 3)
	for project, some := range taken {
		same(t, project, idsOf(some), "0")
	}
}

func TestALaneThatWasEmptiedForWantOfRoomGoes(t *testing.T) {
	l := waiting("a:1 b:1")
	l.byProject["a"].items = nil
	l.take(10)
	same(t, "lanes", slices.Collect(maps.Keys(l.byProject)), []string{"b"})
}

func TestATryIsSettledByItsError(t *testing.T) {
	for _, of := range []struct {
		name    string
		err     error
		want    map[string]string
		held    int
		down    map[string]error
		refused map[string]error
	}{
		{"written", nil, map[string]string{"a": "2 3"}, 2, map[string]error{}, map[string]error{}},
		{"the node is down", errDown, map[string]string{"a": "0 1 2 3"}, 4, map[string]error{"one": errDown}, map[string]error{}},
		{"refused", errRefused, map[string]string{"a": "2 3 0 1"}, 4, map[string]error{}, map[string]error{"a": errRefused}},
	} {
		t.Run(of.name, func(t *testing.T) {
			l := waiting("a:4")
			failed := map[string]error{}
			if of.err != nil {
				failed["a"] = of.err
			}
			up, down, refused := l.settle(l.take(2), failed, map[string]string{"a": "one"})
			same(t, "lanes", l.ids(), of.want)
			same(t, "held", l.held, of.held)
			same(t, "up", up, []string(nil))
			same(t, "down", down, of.down)
			same(t, "refused", refused, of.refused)
			if hasSucceeded := l.byProject["a"].pause.length == 0; hasSucceeded != (of.err == nil) {
				t.Errorf("the next pause: %+v", l.byProject["a"].pause)
			}
		})
	}
}

func TestALaneEndsWhenAllItsRecordsAreWritten(t *testing.T) {
	l := waiting("a:2")
	l.settle(l.take(2), nil, nil)
	same(t, "lanes", l.ids(), map[string]string{})
	same(t, "held", l.held, 0)
	if l.holds("a", "") {
		t.Error("it still waits apart")
	}
}

func TestANodeIsUpWhenOneOfItsProjectsIsWritten(t *testing.T) {
	places := map[string]string{"a": "one", "b": "one", "c": "two"}
	failing := func() (*lanes, map[string][]item) {
		l := newLanes(1000)
		l.add(items("a:2 b:2 c:2"), places)
		l.fail(map[string]error{"a": errDown, "b": errDown, "c": errDown}, places)
		l.hurry()
		return l, l.take(6)
	}

	t.Run("the other node stays down", func(t *testing.T) {
		l, taken := failing()
		up, down, _ := l.settle(taken, map[string]error{"c": errDown}, places)
		same(t, "up", up, []string{"one"})
		same(t, "down", down, map[string]error{})
		same(t, "still down", slices.Collect(maps.Keys(l.down)), []string{"two"})
		same(t, "lanes", l.ids(), map[string]string{"c": "0 1"})
	})
	t.Run("one that takes some projects and not others is told as neither", func(t *testing.T) {
		l, taken := failing()
		up, down, _ := l.settle(taken, map[string]error{"b": errDown, "c": errDown}, places)
		same(t, "up", up, []string{})
		same(t, "down", down, map[string]error{})
		same(t, "still down", slices.Sorted(maps.Keys(l.down)), []string{"one", "two"})
	})
}

func TestTheNextTryIsThatOfTheLaneThatIsDueFirst(t *testing.T) {
	l := waiting("a:1 b:1 c:1")
	now := time.Now()
	for project, after := range map[string]time.Duration{"a": 3, "b": 1, "c": 2} {
		l.byProject[project].pause.due = now.Add(after * time.Hour)
	}
	due, isAny := l.nextDue()
	same(t, "due", due, now.Add(time.Hour))
	same(t, "any", isAny, true)
	l.hurry()
	if due, _ = l.nextDue(); !due.IsZero() {
		t.Errorf("after hurry it is due at %v", due)
	}
	if _, isAny = newLanes(1).nextDue(); isAny {
		t.Error("where nothing waits nothing is due")
	}
}

func TestWhatIsTooMuchIsDroppedFromTheLongestLaneNewestFirst(t *testing.T) {
	for _, of := range []struct {
		name  string
		lanes string
		most  int
		want  map[string]int
	}{
		{"there is room", "a:6 b:4", 10, map[string]int{"a": 6, "b": 4}},
		{"one too many", "a:6 b:4", 9, map[string]int{"a": 5, "b": 4}},
		{"the longest pays for the others", "a:20 b:3 c:3", 12, map[string]int{"a": 6, "b": 3, "c": 3}},
		{"when it is no longer the longest, the next one pays", "a:20 b:18 c:1", 21, map[string]int{"a": 10, "b": 10, "c": 1}},
		{"equal lanes", "a:8 b:8", 8, map[string]int{"a": 4, "b": 4}},
		{"no room at all", "a:3 b:2", 0, map[string]int{"a": 0, "b": 0}},
	} {
		t.Run(of.name, func(t *testing.T) {
			l := newLanes(of.most)
			dropped := l.add(items(of.lanes), nil)
			left, kept := map[string]int{}, 0
			for project, held := range l.byProject {
				left[project] = len(held.items)
				kept += len(held.items)
				for number, each := range held.items {
					same(t, "the oldest of "+project+" stay", each.record.(EventCreated).EventID, fmt.Sprint(number))
				}
			}
			same(t, "left", left, of.want)
			same(t, "held", l.held, kept)
			same(t, "dropped", len(dropped), len(items(of.lanes))-kept)
		})
	}
}

func TestWhatIsBeingTriedIsNotDroppedForWantOfRoom(t *testing.T) {
	l := waiting("a:4")
	taken := l.take(4)
	l.most = 2
	dropped := l.add(items("b:1"), nil)
	same(t, "dropped", idsOf(dropped), "0")
	same(t, "held", l.held, 4)
	l.settle(taken, nil, nil)
	same(t, "held when it is written", l.held, 0)
}
