package policy

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// extensionKey is the one key that is ours.
const extensionKey = "x-stile"

// Raw is a value that is gRPC's affair: maps, slices, strings, numbers, booleans, nil.
type Raw struct{ Value any }

// decoder fills a Config from a tree of nodes and gathers what is wrong.
type decoder struct {
	file     string
	config   *Config
	faults   Problems
	warnings Problems
	nodes    int
}

func (d *decoder) faultf(at Place, path, format string, args ...any) {
	switch {
	case len(d.faults) > maxFaults:
		return
	case len(d.faults) == maxFaults:
		path, format, args = "", "more faults follow", nil
	}
	d.faults = append(d.faults, Problem{File: d.file, Place: at, Path: path, Text: fmt.Sprintf(format, args...)})
}

func (d *decoder) warnf(at Place, path, format string, args ...any) {
	d.warnings = append(d.warnings, Problem{File: d.file, Place: at, Path: path, Text: fmt.Sprintf(format, args...)})
}

func (d *decoder) decode(root *yaml.Node, c *Config) {
	if root.Kind != yaml.MappingNode {
		d.faultf(place(root), "", "a policy is a mapping with keys such as methodConfig, not %s", kindOf(root))
		return
	}
	d.value(root, reflect.ValueOf(c).Elem(), "", 0)
	if d.nodes > maxNodes {
		return
	}
	d.check(c)
	if len(d.faults) == 0 {
		d.nodes = 0
		c.whole = d.raw(root, "", 0)
	}
}

func place(n *yaml.Node) Place { return Place{n.Line, n.Column} }

// scalar is a type that is written as one word.
type scalar interface{ parse(string) error }

// value decodes n into v. path is where n is in the file.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string, depth int) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if d.nodes++; d.nodes > maxNodes || depth > maxDepth {
		if d.nodes == maxNodes+1 || depth > maxDepth {
			d.faultf(place(n), path, "too much: %d values, %d of them in each other, are the most", maxNodes, maxDepth)
			d.nodes = maxNodes + 2
		}
		return
	}
	if isNull(n) {
		return // as if it were not there, as in protoJSON
	}
	if path != "" {
		d.config.places[path] = place(n)
	}
	if v.Type() == reflect.TypeFor[Raw]() {
		v.Set(reflect.ValueOf(Raw{d.raw(n, path, depth)}))
		return
	}
	if s, ok := v.Addr().Interface().(scalar); ok {
		d.word(n, s, path)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		d.value(n, p.Elem(), path, depth)
		v.Set(p)
	case reflect.Struct:
		if d.is(n, yaml.MappingNode, path) {
			d.fields(n, v, path, depth)
		}
	case reflect.Slice:
		if !d.is(n, yaml.SequenceNode, path) {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
		for i, item := range n.Content {
			at := path + "[" + strconv.Itoa(i) + "]"
			if isNull(item) {
				d.faultf(place(item), at, "is null: leave it out")
			}
			d.value(item, v.Index(i), at, depth+1)
		}
	default:
		if d.is(n, yaml.ScalarNode, path) {
			d.plain(n, v, path)
		}
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// is reports a fault if n is of another kind.
func (d *decoder) is(n *yaml.Node, want yaml.Kind, path string) bool {
	if n.Kind != want {
		names := map[yaml.Kind]string{yaml.MappingNode: "a mapping", yaml.SequenceNode: "a list", yaml.ScalarNode: "a single value"}
		d.faultf(place(n), path, "is %s, want %s", kindOf(n), names[want])
	}
	return n.Kind == want
}

// kindOf says what n is, for people.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!str":
		return fmt.Sprintf("the text %q", clipped(n.Value))
	case "!!bool", "!!int", "!!float":
		return "the value " + clipped(n.Value)
	case "!!null":
		return "null"
	}
	return fmt.Sprintf("%q", clipped(n.Value))
}

func clipped(s string) string {
	if len(s) > maxKeySize {
		return strings.ToValidUTF8(s[:maxKeySize], "") + "…"
	}
	return s
}

// word decodes one of the package's own types.
func (d *decoder) word(n *yaml.Node, to scalar, path string) {
	if !d.is(n, yaml.ScalarNode, path) {
		return
	}
	switch to.(type) {
	case *Size, *Code: // may be numbers
	default:
		if n.ShortTag() != "!!str" {
			d.faultf(place(n), path, "is %s, want text%s", kindOf(n), example(to))
			return
		}
	}
	if err := to.parse(n.Value); err != nil {
		d.faultf(place(n), path, "%v", err)
	}
}

func example(to scalar) string {
	switch to.(type) {
	case *Duration, *Delay:
		return `: seconds, such as "0.25s"`
	}
	return ""
}

// plain decodes text, numbers and booleans.
func (d *decoder) plain(n *yaml.Node, v reflect.Value, path string) {
	tag := n.ShortTag()
	switch v.Kind() {
	case reflect.String:
		if tag != "!!str" {
			d.faultf(place(n), path, "is %s, want text: put it in quotes", kindOf(n))
			return
		}
		v.SetString(n.Value)
	case reflect.Bool:
		if tag != "!!bool" {
			d.faultf(place(n), path, "is %s, want true or false", kindOf(n))
			return
		}
		v.SetBool(strings.EqualFold(n.Value, "true"))
	case reflect.Int, reflect.Int64:
		i, ok := whole(n, tag)
		if !ok {
			d.faultf(place(n), path, "is %s, want a whole number", kindOf(n))
			return
		}
		v.SetInt(i)
	case reflect.Float64:
		var f float64
		if (tag != "!!int" && tag != "!!float") || n.Decode(&f) != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			d.faultf(place(n), path, "is %s, want a number", kindOf(n))
			return
		}
		v.SetFloat(f)
	default:
		panic("policy: a field of kind " + v.Kind().String())
	}
}

// whole reads an integer; as in JSON, 3.0 is one.
func whole(n *yaml.Node, tag string) (i int64, ok bool) {
	switch tag {
	case "!!int":
		err := n.Decode(&i)
		return i, err == nil
	case "!!float":
		var f float64
		if n.Decode(&f) == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			return int64(f), true
		}
	}
	return 0, false
}

// fields decodes a mapping into a struct.
func (d *decoder) fields(n *yaml.Node, v reflect.Value, path string, depth int) {
	known := fieldsOf(v.Type())
	names := make([]string, len(known))
	for i, f := range known {
		names[i] = f.name
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			d.faultf(place(key), path, "a key is %s, want a name", kindOf(key))
			continue
		}
		at := join(path, clipped(key.Value))
		if key.ShortTag() == "!!merge" {
			d.faultf(place(key), path, "<< is YAML 1.1's: write the keys out")
			continue
		}
		if seen[key.Value] {
			d.faultf(place(key), at, "is there twice")
			continue
		}
		seen[key.Value] = true
		if at := slices.Index(names, key.Value); at >= 0 {
			f := known[at]
			before := len(d.faults)
			field := v.FieldByIndex(f.index)
			d.value(val, field, join(path, f.name), depth+1)
			if len(d.faults) == before && !isNull(val) {
				d.inRange(field, f, join(path, f.name))
			}
			continue
		}
		d.unknown(key, at, path, names)
	}
	for _, f := range known {
		if seen[f.name] {
			continue
		}
		if f.required {
			d.faultf(place(n), path, "%s is missing", f.name)
		}
		setDefault(v.FieldByIndex(f.index), f)
	}
}

// unknown tells of a key that nobody knows: a fault where we own the words.
func (d *decoder) unknown(key *yaml.Node, at, path string, names []string) {
	for _, name := range names {
		if strings.EqualFold(name, key.Value) {
			d.faultf(place(key), at, "is to be written %s", name) // grpc-go would take it
			return
		}
	}
	hint := meant(key.Value, names)
	if slices.Contains(strings.Split(path, "."), extensionKey) {
		if hint == "" {
			hint = ": one of " + strings.Join(names, ", ")
		}
		d.faultf(place(key), at, "is not a key of %s%s", lastOf(path), hint)
		return
	}
	d.warnf(place(key), at, "is not a key of gRPC's service config%s; gRPC passes it over", hint)
}

func lastOf(path string) string { return path[strings.LastIndex(path, ".")+1:] }

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// raw decodes what gRPC itself reads.
func (d *decoder) raw(n *yaml.Node, path string, depth int) any {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if d.nodes++; d.nodes > maxNodes || depth > maxDepth {
		if d.nodes == maxNodes+1 || depth > maxDepth {
			d.faultf(place(n), path, "too much: %d values, %d of them in each other, are the most", maxNodes, maxDepth)
			d.nodes = maxNodes + 2
		}
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			at := join(path, clipped(key.Value))
			if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!merge" {
				d.faultf(place(key), at, "is not a name")
				continue
			}
			if _, twice := m[key.Value]; twice {
				d.faultf(place(key), at, "is there twice")
			}
			m[key.Value] = d.raw(n.Content[i+1], at, depth+1)
		}
		return m
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, item := range n.Content {
			list[i] = d.raw(item, path+"["+strconv.Itoa(i)+"]", depth+1)
		}
		return list
	}
	var v any
	if err := n.Decode(&v); err != nil {
		d.faultf(place(n), path, "is %s: %v", kindOf(n), err)
		return nil
	}
	switch v := v.(type) {
	case nil, string, bool, int, int64, uint64:
		return v
	case float64:
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			return v
		}
	}
	d.faultf(place(n), path, "is %s, which JSON cannot say", kindOf(n))
	return nil
}
