package policy

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"regexp"
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
	over     bool // more nodes or depth than is read
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

// warnf warns of what grpc-go passes over.
func (d *decoder) warnf(at Place, path, format string, args ...any) {
	d.warn("passed-over", at, path, format, args...)
}

func (d *decoder) warn(rule string, at Place, path, format string, args ...any) {
	if len(d.warnings) < maxFaults {
		d.warnings = append(d.warnings, Problem{File: d.file, Place: at, Path: path, Text: fmt.Sprintf(format, args...), Rule: rule})
	}
}

func (d *decoder) decode(root *yaml.Node, c *Config) {
	if root.Kind != yaml.MappingNode {
		d.faultf(place(root), "", "a policy is a mapping with keys such as methodConfig, not %s", kindOf(root))
		return
	}
	d.value(root, reflect.ValueOf(c).Elem(), "", 0)
	if d.over {
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

// numeric is a scalar that may be a number too.
type numeric interface {
	scalar
	number(int64) error
}

// value decodes n into v. path is where n is in the file.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string, depth int) {
	n = resolved(n)
	if d.tooMuch(n, path, depth) || isNull(n) {
		return // null is as if it were not there, as in protoJSON
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

// resolved returns what an alias stands for.
func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool {
	n = resolved(n)
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// tooMuch counts a node, and tells whether there are more than are read. That is told
// once.
func (d *decoder) tooMuch(n *yaml.Node, path string, depth int) bool {
	if d.nodes++; !d.over && (d.nodes > maxNodes || depth > maxDepth) {
		d.over = true
		d.faultf(place(n), path, "is one too many: a file has %d values at most, those of aliases counted where they are used, and %d in each other", maxNodes, maxDepth)
	}
	return d.over
}

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
	tag := n.ShortTag()
	if to, ok := to.(numeric); ok && tag == "!!int" {
		i, ok := d.whole(n, path)
		if !ok {
			return
		}
		if err := to.number(i); err != nil {
			d.faultf(place(n), path, "%v", err)
		}
		return
	}
	if tag != "!!str" {
		d.faultf(place(n), path, "is %s, want text%s", kindOf(n), example(to))
		return
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
		if i, ok := d.whole(n, path); ok {
			v.SetInt(i)
		}
	case reflect.Float64:
		var f float64
		if tag == "!!int" && !d.decimal(n, path) {
			return
		}
		if (tag != "!!int" && tag != "!!float") || n.Decode(&f) != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			d.faultf(place(n), path, "is %s, want a number", kindOf(n))
			return
		}
		v.SetFloat(f)
	default:
		panic("policy: a field of kind " + v.Kind().String())
	}
}

// decimal reports a fault if n is written so that YAML's versions disagree on its
// value, and JSON has none: 010, 1_000, 0x10.
func (d *decoder) decimal(n *yaml.Node, path string) bool {
	digits := strings.TrimLeft(n.Value, "+-")
	if strings.Trim(digits, "0123456789") != "" || len(digits) > 1 && digits[0] == '0' {
		d.faultf(place(n), path, "is the value %s: write it as a decimal number", clipped(n.Value))
		return false
	}
	return true
}

// whole reads an integer; as in JSON, 3.0 is one.
func (d *decoder) whole(n *yaml.Node, path string) (i int64, ok bool) {
	switch n.ShortTag() {
	case "!!int":
		if !d.decimal(n, path) {
			return 0, false
		}
		ok = n.Decode(&i) == nil
	case "!!float":
		var f float64
		ok = n.Decode(&f) == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53
		i = int64(f)
	}
	if !ok {
		d.faultf(place(n), path, "is %s, want a whole number", kindOf(n))
	}
	return i, ok
}

// fields decodes a mapping into a struct.
func (d *decoder) fields(n *yaml.Node, v reflect.Value, path string, depth int) {
	known := fieldsOf(v.Type())
	names := make([]string, len(known))
	for i, f := range known {
		names[i] = f.name
	}
	seen, written := map[string]bool{}, map[string]bool{}
	var strange []string
	for i := 0; i+1 < len(n.Content) && !d.over; i += 2 {
		key, val := resolved(n.Content[i]), n.Content[i+1]
		if d.tooMuch(key, path, depth) {
			return
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
		which := slices.Index(names, key.Value)
		if which < 0 {
			strange = append(strange, key.Value)
			d.unknown(key, at, path, names)
			continue
		}
		before := len(d.faults)
		field := v.FieldByIndex(known[which].index)
		d.value(val, field, at, depth+1)
		if isNull(val) {
			continue
		}
		written[key.Value] = true
		if len(d.faults) == before && !d.over {
			d.inRange(field, known[which], at)
		}
	}
	for _, f := range known {
		if written[f.name] {
			continue
		}
		if f.required {
			d.faultf(place(n), path, "%s is missing%s", f.name, instead(f.name, strange))
		}
		setDefault(v.FieldByIndex(f.index), f)
	}
}

// instead names the unknown key that may have been meant as name.
func instead(name string, unknown []string) string {
	for _, key := range unknown {
		if len(key) < maxKeySize && meant(key, []string{name}) != "" {
			return fmt.Sprintf("; %s is not a key", key)
		}
	}
	return ""
}

// unknown tells of a key that nobody knows: a fault where we own the words.
func (d *decoder) unknown(key *yaml.Node, at, path string, names []string) {
	for _, name := range names {
		if strings.EqualFold(name, key.Value) {
			d.faultf(place(key), at, "is to be written %s", name) // grpc-go would take it
			return
		}
	}
	if slices.Contains(strings.Split(path, "."), extensionKey) {
		if len(d.faults) > maxFaults {
			return
		}
		hint := meant(key.Value, names)
		if hint == "" {
			hint = ": one of " + strings.Join(names, ", ")
		}
		d.faultf(place(key), at, "is not a key of %s%s", lastOf(path), hint)
		return
	}
	if len(d.warnings) < maxFaults {
		d.warnf(place(key), at, "is not a key of gRPC's service config%s; gRPC passes it over", meant(key.Value, names))
	}
}

func lastOf(path string) string { return path[strings.LastIndex(path, ".")+1:] }

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// jsonNumber is how JSON writes numbers.
var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// raw decodes what gRPC itself reads.
func (d *decoder) raw(n *yaml.Node, path string, depth int) any {
	n = resolved(n)
	if d.tooMuch(n, path, depth) {
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content) && !d.over; i += 2 {
			key := resolved(n.Content[i])
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
	if n.Style == 0 && jsonNumber.MatchString(n.Value) {
		return json.Number(n.Value) // with all its digits
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
