package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// unknownBase stands for every base image: BuildKit asks for its configuration, and here is no registry.
type unknownBase struct{}

func (unknownBase) ResolveImageConfig(
	_ context.Context, ref string, _ sourceresolver.Opt,
) (string, digest.Digest, []byte, error) {
	config, err := json.Marshal(ocispecs.Image{Platform: ocispecs.Platform{OS: "linux", Architecture: "amd64"}})
	return ref, digest.FromBytes(config), config, err
}

// checkDockerfile finds the image's configuration, and the commands of every RUN in their order.
func checkDockerfile(ctx context.Context, file string) (report, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return report{}, err
	}
	answer := report{Faults: []string{}}
	options := dockerfile2llb.ConvertOpt{
		MetaResolver:   unknownBase{},
		TargetPlatform: &ocispecs.Platform{OS: "linux", Architecture: "amd64"},
		Warn: func(rule, _, _, message string, location []parser.Range) {
			answer.Faults = append(answer.Faults, fmt.Sprintf("%s: %s %v", rule, message, location))
		},
	}
	state, image, _, _, err := dockerfile2llb.Dockerfile2LLB(ctx, text, options)
	if err != nil {
		answer.Faults = append(answer.Faults, err.Error())
		return answer, nil
	}
	definition, err := state.Marshal(ctx)
	if err != nil {
		return report{}, err
	}
	var runs [][]string
	for _, encoded := range definition.Def {
		var operation pb.Op
		if err := operation.UnmarshalVT(encoded); err != nil {
			return report{}, err
		}
		if run := operation.GetExec(); run != nil {
			runs = append(runs, run.Meta.Args)
		}
	}
	answer.Found = map[string]any{"config": image.Config, "runs": runs}
	return answer, nil
}

// buildContext finds the files that the ignore file lets through, relative to the folder.
func buildContext(folder, ignore string) (report, error) {
	opened, err := os.Open(ignore)
	if err != nil {
		return report{}, err
	}
	defer opened.Close()
	patterns, err := ignorefile.ReadAll(opened)
	if err != nil {
		return report{}, err
	}
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		return report{}, err
	}
	files := []string{}
	err = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		ignored, err := matcher.MatchesOrParentMatches(name)
		if !ignored {
			files = append(files, name)
		}
		return err
	})
	return report{Faults: []string{}, Found: files}, err
}
