package recorder

import "strings"

// Redis unpacks the arguments of a call onto Lua's stack, and a long call holds everybody else up.
const (
	mostRecords   = 256
	mostAnnounced = 512
)

// call is one script call. The first of its keys names its slot in a cluster. The first of a project's args is empty: the
// script goes by the contract that the project has.
type call struct {
	script  *script
	project string
	keys    []string
	args    []any
}

type group struct {
	script  *script
	project string
	day     string
}

type batch struct {
	group
	words   []any
	records int
}

// calls are the script calls that record all of records: one for each project, kind of record and day. Each is
// atomic, and repeating it changes nothing.
func (o Options) calls(records []record) []call {
	var made []call
	var begun []*batch // in the order of their first records
	open := map[group]*batch{}
	add := func(of group, words ...any) {
		held := open[of]
		if held == nil {
			held = &batch{group: of}
			open[of] = held
			begun = append(begun, held)
		}
		held.words = append(held.words, words...)
		if held.records++; held.records == mostRecords {
			made = append(made, o.recording(of, held.words))
			delete(open, of)
		}
	}
	for _, each := range records {
		switch of := each.(type) {
		case EventCreated:
			id := identify(of.EventID)
			add(group{recordEvents, of.Project, id.day}, id.stored, id.hash, of.At.UnixMicro(), of.Source.sourceWord())
		case DeliveryCreated:
			id := identify(of.DeliveryID)
			add(group{recordDeliveries, of.Project, id.day}, deliveryWords(id, StatusSet(of), 1)...)
		case StatusSet:
			id := identify(of.DeliveryID)
			add(group{recordDeliveries, of.Project, id.day}, deliveryWords(id, of, 0)...)
		case AttemptMade:
			id := identify(of.AttemptID)
			add(group{recordAttempts, of.Project, id.day}, id.stored, id.hash, attemptField(of))
		case ProjectDescribed:
			keys := []string{o.prefix(of.Project) + ":meta"}
			args := []any{
				"", "", of.At.UnixMicro(), clean(of.ProjectName), clean(of.OrganisationID), clean(of.OrganisationName),
			}
			made = append(made, call{describeProject, of.Project, keys, args})
		case DayExpired:
			made = append(made, o.expiring(of))
		}
	}
	for _, held := range begun {
		if held.records < mostRecords {
			made = append(made, o.recording(held.group, held.words))
		}
	}
	return made
}

func (o Options) recording(of group, words []any) call {
	prefix := o.prefix(of.project)
	keys := []string{prefix + ":meta", prefix + ":groups"}
	switch of.script {
	case recordDeliveries:
		keys = append(keys, prefix+":days", prefix+":deliveries:"+of.day)
	case recordEvents:
		keys = append(keys, prefix+":days", prefix+":events:"+of.day)
	case recordAttempts:
		keys = append(keys, prefix+":attempts", prefix+":days", prefix+":attempt-ids:"+of.day)
	}
	return call{of.script, of.project, keys, append([]any{"", of.day}, words...)}
}

func (o Options) expiring(of DayExpired) call {
	prefix := o.prefix(of.Project)
	return call{expireDay, of.Project, []string{prefix + ":meta", prefix + ":days"}, []any{"", of.Day}}
}

// Braces in a project's id would end the hash tag early.
var escaped = strings.NewReplacer("%", "%25", "{", "%7B", "}", "%7D")

func (o Options) prefix(project string) string {
	return o.Namespace + ":{" + escaped.Replace(project) + "}"
}

func deliveryWords(id identity, of StatusSet, isCreated int) []any {
	created, origin := id.createdUs, 1
	switch {
	case !of.CreatedAt.IsZero():
		created, origin = of.CreatedAt.UnixMicro(), 2+isCreated
	case created == 0:
		created = of.At.UnixMicro()
	}
	rank, _ := rankOf(of.Status)
	return []any{
		id.stored, id.hash, rank, of.At.UnixMicro(), isCreated, created, origin,
		of.Endpoint.word(), of.EventType.word(), of.Source.sourceWord(),
	}
}

func attemptField(of AttemptMade) string {
	endpoint := unknown
	if text, told := of.Endpoint.Text(); told {
		endpoint = clean(text)
	}
	return endpoint + "\x00" + outcome(of.Succeeded) + "\x00" + statusCode(of.HTTPStatus)
}
