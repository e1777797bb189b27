// Package protos reads what services say of their methods, from .proto files and from
// serialized descriptor sets.
package protos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Load reads sources, each a descriptor set (any file whose name does not end in .proto), a
// .proto file, or a folder of them, and returns what each has: files of the same name under two of
// them are two files. Imports are looked for in importPaths, and in the folder that is the
// source or holds it.
func Load(ctx context.Context, sources, importPaths []string) ([]*protoregistry.Files, error) {
	var all []*protoregistry.Files
	for _, s := range sources {
		found, err := load(ctx, s, importPaths)
		if err != nil {
			return nil, err
		}
		all = append(all, found)
	}
	return all, nil
}

func load(ctx context.Context, source string, importPaths []string) (*protoregistry.Files, error) {
	info, err := os.Stat(source)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		files, err := protosIn(source)
		if err != nil {
			return nil, err
		}
		return compile(ctx, files, append(slices.Clone(importPaths), source))
	case strings.HasSuffix(source, ".proto"):
		return compile(ctx, []string{source}, append(slices.Clone(importPaths), filepath.Dir(source)))
	}
	return readSet(source)
}

func protosIn(dir string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.HasSuffix(path, ".proto") {
			files = append(files, path)
		}
		return err
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s has no .proto file", dir)
	}
	return files, err
}

// readSet reads a serialized FileDescriptorSet, as protoc --include_imports -o and buf build -o
// write it.
func readSet(path string) (*protoregistry.Files, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(data, &set); err != nil || len(set.File) == 0 {
		return nil, fmt.Errorf("%s is no descriptor set, as protoc --include_imports -o or buf build -o write it", path)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return files, nil
}

func compile(ctx context.Context, files, importPaths []string) (*protoregistry.Files, error) {
	var names []string
	for _, f := range files {
		name, err := underOneOf(f, importPaths)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	c := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: importPaths}),
	}
	compiled, err := c.Compile(ctx, names...)
	if errors.Is(err, protoregistry.NotFound) || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w (looked in %s: say --import-path)", err, strings.Join(importPaths, ", "))
	}
	if err != nil {
		return nil, err
	}
	found := new(protoregistry.Files)
	for _, f := range compiled {
		if err := found.RegisterFile(f); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// underOneOf returns the name that f has for imports: its path within the first of dirs that holds it.
func underOneOf(f string, dirs []string) (string, error) {
	for _, dir := range dirs {
		if name, err := filepath.Rel(dir, f); err == nil && filepath.IsLocal(name) {
			return filepath.ToSlash(name), nil
		}
	}
	return "", fmt.Errorf("%s is in none of the import paths %s", f, strings.Join(dirs, ", "))
}
