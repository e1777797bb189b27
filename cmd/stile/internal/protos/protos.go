// Package protos reads what services say of their methods, from .proto files and from
// serialized descriptor sets.
package protos

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Load reads sources, each a descriptor set (any file whose name does not end in .proto), a
// .proto file, or a folder of them. Imports are looked for in importPaths, and without any in
// the folders that sources name.
func Load(ctx context.Context, sources, importPaths []string) (*protoregistry.Files, error) {
	found := new(protoregistry.Files)
	var files []string
	for _, s := range sources {
		info, err := os.Stat(s)
		switch {
		case err != nil:
			return nil, err
		case info.IsDir():
			more, err := protosIn(s)
			if err != nil {
				return nil, err
			}
			files = append(files, more...)
			if len(importPaths) == 0 || !slices.Contains(importPaths, s) {
				importPaths = append(importPaths, s)
			}
		case strings.HasSuffix(s, ".proto"):
			files = append(files, s)
			importPaths = append(importPaths, filepath.Dir(s))
		default:
			if err := addSet(found, s); err != nil {
				return nil, err
			}
		}
	}
	return found, compile(ctx, found, files, importPaths)
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

// addSet adds a serialized FileDescriptorSet, as protoc --include_imports -o and buf build -o
// write it.
func addSet(found *protoregistry.Files, path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(data, &set); err != nil || len(set.File) == 0 {
		return fmt.Errorf("%s is no descriptor set, as protoc --include_imports -o or buf build -o write it", path)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	files.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		err = add(found, f)
		return err == nil
	})
	return err
}

// add registers f unless it is there.
func add(found *protoregistry.Files, f protoreflect.FileDescriptor) error {
	if _, err := found.FindFileByPath(f.Path()); err == nil {
		return nil
	}
	return found.RegisterFile(f)
}

func compile(ctx context.Context, found *protoregistry.Files, files, importPaths []string) error {
	if len(files) == 0 {
		return nil
	}
	var names []string
	for _, f := range files {
		name, err := underOneOf(f, importPaths)
		if err != nil {
			return err
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	c := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: importPaths}),
	}
	compiled, err := c.Compile(ctx, names...)
	if err != nil {
		return err
	}
	for _, f := range compiled {
		if err := add(found, f); err != nil {
			return err
		}
	}
	return nil
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
