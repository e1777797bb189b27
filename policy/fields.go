package policy

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// field is one key of a mapping, as the struct's tags tell it.
type field struct {
	name     string
	index    []int
	typ      reflect.Type
	doc      string
	initial  string // what holds where it is not written
	required bool
	limits   limits
	usual    float64 // more is probably a mistake; 0: nothing is
	filled   bool    // a list that must not be empty
	distinct bool    // a list that must not have anything twice
}

// limits is an interval. An open end excludes its bound.
type limits struct {
	text              string // empty: none
	low, high         float64
	hasLow, hasHigh   bool
	openLow, openHigh bool
}

// fieldsOf lists the keys of a struct.
func fieldsOf(t reflect.Type) []field {
	var list []field
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("json")
		if !f.IsExported() || name == "-" {
			continue
		}
		list = append(list, field{
			name: name, index: f.Index, typ: f.Type, doc: f.Tag.Get("doc"), initial: f.Tag.Get("default"),
			required: f.Tag.Get("required") == "true", limits: limitsOf(f.Tag.Get("range")), usual: numberOf(f.Tag.Get("usual")),
			filled: strings.Contains(f.Tag.Get("list"), "filled"), distinct: strings.Contains(f.Tag.Get("list"), "distinct"),
		})
	}
	return list
}

// limitsOf reads ">0", ">=0", or an interval such as "(0,100]".
func limitsOf(tag string) limits {
	l := limits{text: tag}
	switch {
	case tag == "":
	case strings.HasPrefix(tag, ">="):
		l.hasLow, l.low = true, numberOf(tag[2:])
	case strings.HasPrefix(tag, ">"):
		l.hasLow, l.openLow, l.low = true, true, numberOf(tag[1:])
	default:
		low, high, _ := strings.Cut(tag[1:len(tag)-1], ",")
		l.hasLow, l.low, l.openLow = true, numberOf(low), tag[0] == '('
		l.hasHigh, l.high, l.openHigh = true, numberOf(high), tag[len(tag)-1] == ')'
	}
	return l
}

// numberOf reads a number of a tag; 0: there is none.
func numberOf(tag string) float64 {
	if tag == "" {
		return 0
	}
	f, err := strconv.ParseFloat(tag, 64)
	if err != nil {
		panic("policy: a tag: " + err.Error())
	}
	return f
}

func (l limits) hold(x float64) bool {
	switch {
	case l.hasLow && (x < l.low || l.openLow && x == l.low):
		return false
	case l.hasHigh && (x > l.high || l.openHigh && x == l.high):
		return false
	}
	return true
}

// String says the limits as part of a sentence.
func (l limits) String() string {
	low := map[bool]string{true: "more than", false: "at least"}[l.openLow]
	text := fmt.Sprintf("%s %v", low, l.low)
	if l.hasHigh {
		high := map[bool]string{true: "less than", false: "at most"}[l.openHigh]
		text += fmt.Sprintf(" and %s %v", high, l.high)
	}
	return text
}

// inRange reports a fault if v, or what it points to, is out of the field's limits, and warns of what is far from
// what anybody needs.
func (d *decoder) inRange(v reflect.Value, f field, path string) {
	if f.limits.text == "" && f.usual == 0 {
		return
	}
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	var x float64
	switch v.Kind() {
	case reflect.Int, reflect.Int64:
		x = float64(v.Int())
	case reflect.Float64:
		x = v.Float()
	default:
		panic("policy: a range on " + path)
	}
	switch {
	case !f.limits.hold(x):
		d.faultf(d.config.places[path], path, "is %v, must be %s", v.Interface(), f.limits)
	case f.usual != 0 && x > f.usual:
		usual := reflect.New(v.Type()).Elem()
		usual.Set(reflect.ValueOf(f.usual).Convert(v.Type()))
		d.warn("unusual", d.config.places[path], path, "is %v, which is probably a mistake: more than %v is of no use", v.Interface(), usual.Interface())
	}
}

// setDefault sets a field that is not written, and all below it.
func setDefault(v reflect.Value, f field) {
	switch to, isScalar := v.Addr().Interface().(scalar); {
	case f.initial == "" && v.Kind() == reflect.Struct && !isScalar:
		for _, f := range fieldsOf(v.Type()) {
			setDefault(v.FieldByIndex(f.index), f)
		}
	case f.initial == "":
	case isScalar:
		must(f, to.parse(f.initial))
	case v.Kind() == reflect.Int:
		i, err := strconv.ParseInt(f.initial, 10, 64)
		must(f, err)
		v.SetInt(i)
	case v.Kind() == reflect.Float64:
		x, err := strconv.ParseFloat(f.initial, 64)
		must(f, err)
		v.SetFloat(x)
	default:
		panic("policy: a default of " + f.name)
	}
}

func must(f field, err error) {
	if err != nil {
		panic(fmt.Sprintf("policy: the default of %s: %v", f.name, err))
	}
}
