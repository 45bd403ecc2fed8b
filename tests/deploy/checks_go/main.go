// Command deploychecks reads deployment files with the code of the programs that take them: BuildKit for a Dockerfile,
// Compose's own loader, Kustomize, and the API server's decoding and validation of objects.
//
//	deploychecks dockerfile FILE       what BuildKit makes of it, and its linter's warnings
//	deploychecks context FOLDER FILE   the files that go to the builder under the ignore file
//	deploychecks compose FILE          the project, with everything filled in
//	deploychecks kustomize FOLDER      the objects that `kubectl apply -k` sends
//	deploychecks objects               the same checks on YAML from stdin
//
// It prints one JSON object, {"faults": ["text"], "found": ...}, and needs no network.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
)

type report struct {
	Faults []string `json:"faults"`
	Found  any      `json:"found"`
}

func main() {
	answer, err := check(context.Background(), os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// check answers one command; an error is a command that makes no sense, not a fault of what is checked.
func check(ctx context.Context, arguments []string) (report, error) {
	switch {
	case len(arguments) == 2 && arguments[0] == "dockerfile":
		return checkDockerfile(ctx, arguments[1])
	case len(arguments) == 3 && arguments[0] == "context":
		return buildContext(arguments[1], arguments[2])
	case len(arguments) == 2 && arguments[0] == "compose":
		return checkCompose(ctx, arguments[1])
	case len(arguments) == 2 && arguments[0] == "kustomize":
		return checkKustomization(arguments[1])
	case len(arguments) == 1 && arguments[0] == "objects":
		return checkObjects(os.Stdin)
	}
	return report{}, fmt.Errorf("unknown command %q; expected dockerfile, context, compose, kustomize or objects", arguments)
}
