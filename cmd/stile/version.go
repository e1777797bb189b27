package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versions is what this binary was built from.
type versions struct {
	Stile string `json:"stile"`
	Go    string `json:"go"`
	GRPC  string `json:"grpc_go"`
	OS    string `json:"os"`
	Arch  string `json:"arch"`
}

func newVersion() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Tell what this binary was built from",
		Example: "  stile version\n  stile version --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := readVersions()
			if asJSON {
				return printJSON(cmd.OutOrStdout(), v)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "stile %s, grpc-go %s, %s, %s/%s\n", v.Stile, v.GRPC, v.Go, v.OS, v.Arch)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func readVersions() versions {
	v := versions{Stile: "unknown", GRPC: "unknown", Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" {
		v.Stile = info.Main.Version
	}
	for _, dep := range info.Deps {
		if dep.Path == "google.golang.org/grpc" {
			v.GRPC = dep.Version
		}
	}
	return v
}
