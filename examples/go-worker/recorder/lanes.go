package recorder

import (
	"cmp"
	"slices"
	"time"
)

const (
	firstPause   = 50 * time.Millisecond
	longestPause = 5 * time.Second
)

// item is a record that waits; epoch is how many calls of Flush it came after.
type item struct {
	record
	epoch uint64
}

// pause is how long something waits for its next try. It has no length after a try that succeeded.
type pause struct {
	length time.Duration
	due    time.Time
}

// lengthen is for a try that failed.
func (p *pause) lengthen() {
	p.length = min(max(2*p.length, firstPause), longestPause)
	p.due = time.Now().Add(p.length)
}

// hurry makes it due; the next pause is the first one again.
func (p *pause) hurry() {
	p.length, p.due = min(p.length, firstPause/2), time.Time{}
}

// lane holds one project's records. It is refused if Redis refuses this project, and not the node all of its projects.
type lane struct {
	pause     *pause
	items     []item
	isRefused bool
}

// lanes has a lane for each project that could not be written, until all its records are. The projects of a node that
// fails share its pause, so that it is tried once and not once per project. What is taken for a try stays counted until
// it is settled. Whoever calls holds the recorder's lock; places says which node has each project.
type lanes struct {
	most      int // records in all lanes
	held      int
	byProject map[string]*lane
	down      map[string]*pause // by node
}

func newLanes(most int) *lanes {
	return &lanes{most: most, byProject: map[string]*lane{}, down: map[string]*pause{}}
}

// holds says whether a project is not to be tried with the others.
func (l *lanes) holds(project, place string) bool {
	return l.byProject[project] != nil || l.down[place] != nil
}

// add queues each record in its project's lane, and returns those that are dropped for want of room.
func (l *lanes) add(items []item, places map[string]string) []item {
	for _, each := range items {
		project := each.project()
		held := l.byProject[project]
		if held == nil {
			held = &lane{pause: cmp.Or(l.down[places[project]], &pause{})}
			l.byProject[project] = held
		}
		held.items = append(held.items, each)
	}
	l.held += len(items)
	return l.dropTooMuch()
}

// fail has projects wait for as long as their errors call for. It returns the nodes and projects that turned bad.
func (l *lanes) fail(failed map[string]error, places map[string]string) (down, refused map[string]error) {
	down, refused = map[string]error{}, map[string]error{}
	pauses := map[*pause]bool{}
	for project, err := range failed {
		held := l.byProject[project]
		if held == nil {
			held = &lane{pause: &pause{}}
			l.byProject[project] = held
		}
		if isOfOneProject(err) {
			if !held.isRefused {
				refused[project] = err
			}
			held.isRefused = true
			for _, shared := range l.down {
				if shared == held.pause {
					held.pause = &pause{}
				}
			}
		} else {
			place := places[project]
			if l.down[place] == nil {
				down[place] = err
				l.down[place] = &pause{}
			}
			held.pause = l.down[place]
		}
		pauses[held.pause] = true
	}
	for each := range pauses {
		each.lengthen()
	}
	return down, refused
}

// nextDue is when the next lane is to be tried; false if there is none.
func (l *lanes) nextDue() (due time.Time, isAny bool) {
	for _, held := range l.byProject {
		if !isAny || held.pause.due.Before(due) {
			due, isAny = held.pause.due, true
		}
	}
	return due, isAny
}

// take takes the oldest records of the lanes that are due, an even part of each, to be settled. Lanes whose last try
// succeeded do not wait for those whose last try failed.
func (l *lanes) take(most int) map[string][]item {
	now := time.Now()
	var due, succeeded []string
	for project, held := range l.byProject {
		switch {
		case len(held.items) == 0: // dropped for want of room
			delete(l.byProject, project)
		case held.pause.length == 0:
			succeeded = append(succeeded, project)
		case !held.pause.due.After(now):
			due = append(due, project)
		}
	}
	if len(succeeded) > 0 {
		due = succeeded
	}
	part := max(1, most/max(1, len(due)))
	taken := map[string][]item{}
	for _, project := range due[:min(most, len(due))] {
		held := l.byProject[project]
		some := min(part, len(held.items))
		taken[project] = held.items[:some:some]
		held.items = held.items[some:]
	}
	return taken
}

// settle ends a try. It returns the nodes that turned well and bad, and the projects that turned bad.
func (l *lanes) settle(taken map[string][]item, failed map[string]error, places map[string]string) (
	up []string, down, refused map[string]error,
) {
	for project, items := range taken {
		held, err := l.byProject[project], failed[project]
		switch {
		case err == nil:
			l.held -= len(items)
			held.pause.length, held.pause.due = 0, time.Time{}
			for place, shared := range l.down {
				if shared == held.pause {
					delete(l.down, place)
					up = append(up, place)
				}
			}
			if len(held.items) == 0 {
				delete(l.byProject, project)
			}
		case isOfOneProject(err):
			// It may be a day that is refused: what stands behind it is tried next.
			held.items = append(held.items, items...)
		default:
			held.items = append(items, held.items...)
		}
	}
	down, refused = l.fail(failed, places)
	// A node that takes some projects' records and not others' stays as it was told.
	up = slices.DeleteFunc(up, func(place string) bool {
		_, isBoth := down[place]
		delete(down, place)
		return isBoth
	})
	return up, down, refused
}

// hurry makes every lane due.
func (l *lanes) hurry() {
	for _, held := range l.byProject {
		held.pause.hurry()
	}
}

// dropTooMuch drops of the project that has the most, for it is not to cost the others their room: its newest.
func (l *lanes) dropTooMuch() (dropped []item) {
	if l.held <= l.most {
		return nil
	}
	longest := make([]*lane, 0, len(l.byProject))
	for _, held := range l.byProject {
		longest = append(longest, held)
	}
	slices.SortFunc(longest, func(one, other *lane) int { return len(other.items) - len(one.items) })
	for much := l.held - l.most; much > 0 && len(longest[0].items) > 0; much = l.held - l.most {
		held := longest[0]
		left := len(held.items) - min(much, (len(held.items)+1)/2)
		dropped = append(dropped, held.items[left:]...)
		l.held -= len(held.items) - left
		clear(held.items[left:])
		held.items = held.items[:left]
		// Back into its place among the others.
		at := 1
		for at < len(longest) && len(longest[at].items) > left {
			longest[at-1] = longest[at]
			at++
		}
		longest[at-1] = held
	}
	return dropped
}
