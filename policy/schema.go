package policy

import (
	"encoding/json"
	"reflect"
	"strconv"
)

// Schema returns a JSON Schema (draft 2020-12) of policy files, for editors. It is made from the
// types of this package.
func Schema() []byte {
	s := &schemer{defs: map[string]any{}}
	root := s.object(reflect.TypeFor[Config](), false)
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Stile policy"
	root["$defs"] = s.defs
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic(err)
	}
	return append(out, '\n')
}

type schemer struct{ defs map[string]any }

// object describes a struct. Where the words are ours, no others are allowed.
func (s *schemer) object(t reflect.Type, ours bool) map[string]any {
	properties, required := map[string]any{}, []string{}
	for _, f := range fieldsOf(t) {
		p := s.value(f.typ, ours || f.name == extensionKey)
		p["description"] = f.doc
		if f.initial != "" {
			p["default"] = literal(f)
		}
		f.limits.describe(p)
		if f.filled {
			p["minItems"] = 1
		}
		if f.distinct {
			p["uniqueItems"] = true
		}
		if f.required {
			required = append(required, f.name)
		}
		properties[f.name] = p
	}
	o := map[string]any{"type": "object", "properties": properties}
	if ours {
		o["additionalProperties"] = false
	}
	if len(required) > 0 {
		o["required"] = required
	}
	return o
}

// literal is a default as JSON has it.
func literal(f field) any {
	if f.typ.Kind() == reflect.Float64 || f.typ.Kind() == reflect.Int {
		if x, err := strconv.ParseFloat(f.initial, 64); err == nil {
			return x
		}
	}
	return f.initial
}

// describe adds what can be said of numbers; those of durations, which are text, cannot.
func (l limits) describe(p map[string]any) {
	if p["type"] != "integer" && p["type"] != "number" {
		return
	}
	if l.hasLow {
		p[map[bool]string{true: "exclusiveMinimum", false: "minimum"}[l.openLow]] = l.low
	}
	if l.hasHigh {
		p[map[bool]string{true: "exclusiveMaximum", false: "maximum"}[l.openHigh]] = l.high
	}
}

const (
	durationPattern = `^([0-9]+(\.[0-9]{0,9})?|\.[0-9]{1,9})s$`
	delayPattern    = `^(([0-9]+(\.[0-9]{0,9})?|\.[0-9]{1,9})s|p[0-9]{1,2}(\.[0-9]+)?)$`
	sizePattern     = `^[0-9]+ ?([KMGT]iB|[kMGT]?B)?$`
)

func (s *schemer) value(t reflect.Type, ours bool) map[string]any {
	switch reflect.New(t).Interface().(type) {
	case *Duration:
		return map[string]any{"type": "string", "pattern": durationPattern}
	case *Delay:
		return map[string]any{"type": "string", "pattern": delayPattern}
	case *Size:
		return map[string]any{"type": []string{"string", "integer"}, "pattern": sizePattern, "minimum": 1}
	case *Code:
		codes := []any{}
		for i, name := range codeNames {
			codes = append(codes, name, i)
		}
		return map[string]any{"enum": codes}
	case *Idempotency:
		return map[string]any{"enum": idempotencyNames}
	case *Criticality:
		return map[string]any{"enum": criticalityNames}
	case *WindowType:
		return map[string]any{"enum": windowNames}
	case *TransportName:
		return map[string]any{"enum": transportNames}
	case *Raw:
		return map[string]any{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.value(t.Elem(), ours)
	case reflect.Slice:
		return map[string]any{"type": "array", "items": s.value(t.Elem(), ours)}
	case reflect.Struct:
		if _, done := s.defs[t.Name()]; !done {
			s.defs[t.Name()] = nil
			s.defs[t.Name()] = s.object(t, ours)
		}
		return map[string]any{"$ref": "#/$defs/" + t.Name()}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.String:
		return map[string]any{"type": "string"}
	}
	panic("policy: a field of type " + t.String())
}
