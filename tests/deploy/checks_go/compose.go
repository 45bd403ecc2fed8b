package main

import (
	"context"

	"github.com/compose-spec/compose-go/v2/cli"
)

// checkCompose finds the project with relative paths made absolute and every profile on.
func checkCompose(ctx context.Context, file string) (report, error) {
	options, err := cli.NewProjectOptions([]string{file}, cli.WithProfiles([]string{"*"}))
	if err != nil {
		return report{}, err
	}
	project, err := options.LoadProject(ctx)
	if err != nil {
		return report{Faults: []string{err.Error()}}, nil
	}
	return report{Faults: []string{}, Found: project}, nil
}
