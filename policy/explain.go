package policy

import (
	"cmp"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Setting is one effective value and where it comes from.
type Setting struct {
	Key    string `json:"key"` // such as x-stile.breaker.failureRateThreshold
	Value  string `json:"value"`
	Source string `json:"source"` // file, default or proto
	Place
	Note string `json:"note,omitempty"` // why the value is not what is written
}

// Explain lists what holds for e.Method, in the order of the schema: what is written,
// and the defaults of what is written in part; then what holds for all methods.
func (c *Config) Explain(e Effective) []Setting {
	x := &explainer{config: c, entry: cmp.Or(e.Entry, "none")}
	x.add("timeout", e.Timeout.String())
	if e.Entry == "" {
		for _, f := range fieldsOf(reflect.TypeFor[MethodConfig]()) {
			setDefault(reflect.ValueOf(&e.Config).Elem().FieldByIndex(f.index), f)
		}
	}
	x.walk(reflect.ValueOf(&e.Config).Elem(), "")
	for i, s := range x.list { // what the .proto says is not in the file
		if s.Key == "x-stile.idempotency" && s.Source == "default" && e.Known != nil {
			x.list[i].Value, x.list[i].Source = e.Idempotency.String(), "proto"
		}
	}
	x.entry = ""
	if c.RetryThrottling != nil {
		x.walk(reflect.ValueOf(c.RetryThrottling).Elem(), "retryThrottling")
	}
	budget := c.Stile.RetryBudget
	x.walk(reflect.ValueOf(&budget).Elem(), "x-stile.retryBudget")
	if a := c.Stile.Admission; a != nil {
		x.walk(reflect.ValueOf(a).Elem(), "x-stile.admission")
	}
	return x.list
}

type explainer struct {
	config *Config
	entry  string
	list   []Setting
}

// add lists a value, a default if it is not written.
func (x *explainer) add(key, value string) {
	s := Setting{Key: key, Value: value, Source: "default"}
	if at, ok := x.config.places[join(x.entry, key)]; ok {
		s.Source, s.Place = "file", at
	} else if key == "timeout" {
		if at, ok := x.config.places["x-stile.defaultTimeout"]; ok {
			s.Source, s.Place = "file", at
		}
	}
	if n, err := strconv.Atoi(value); err == nil && n > maxGRPCAttempts && strings.HasSuffix(key, ".maxAttempts") {
		s.Value, s.Note = strconv.Itoa(maxGRPCAttempts), fmt.Sprintf("%d is written; there are never more", n)
	}
	x.list = append(x.list, s)
}

func (x *explainer) walk(v reflect.Value, path string) {
	for _, f := range fieldsOf(v.Type()) {
		at, field := join(path, f.name), v.FieldByIndex(f.index)
		if at == "name" || at == "timeout" {
			continue
		}
		if field.Kind() == reflect.Pointer {
			if field.IsNil() {
				continue
			}
			field = field.Elem()
		}
		_, isScalar := field.Addr().Interface().(scalar)
		_, written := x.config.places[join(x.entry, at)]
		switch {
		case field.Kind() == reflect.Struct && !isScalar:
			x.walk(field, at)
		case written || f.initial != "" || at == "x-stile.idempotency":
			x.add(at, say(field))
		}
	}
}

// say writes a value as a file would.
func say(v reflect.Value) string {
	if s, ok := v.Interface().(fmt.Stringer); ok {
		return s.String()
	}
	if v.Kind() == reflect.Slice {
		words := make([]string, v.Len())
		for i := range words {
			words[i] = say(v.Index(i))
		}
		return "[" + strings.Join(words, ", ") + "]"
	}
	return fmt.Sprint(v.Interface())
}
