package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/stile-ipc/stile/hub"
)

// hubAddress waits until a hub has a folder, and sets $API and $OTLP to its URLs.
func hubAddress(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: hubaddress folder")
	}
	file := filepath.Join(ts.MkAbs(args[0]), addressesFile)
	await(ts, false, []string{file})
	text, err := os.ReadFile(file)
	ts.Check(err)
	var urls map[string]string
	ts.Check(json.Unmarshal(text, &urls))
	ts.Setenv("API", urls["API"])
	ts.Setenv("OTLP", urls["OTLP/HTTP"])
	ts.Setenv("NATS", urls[hub.ForNATS])
}

// reports waits until a service reports to the hub of a URL.
func reports(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: reports URL service")
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(5 * time.Millisecond) {
		resp, err := client.Get(args[0] + "/api/v1/processes")
		ts.Check(err)
		var got hub.Processes
		ts.Check(errors.Join(json.NewDecoder(resp.Body).Decode(&got), resp.Body.Close()))
		if slices.ContainsFunc(got.Processes, func(p hub.ProcessReport) bool { return p.Service == args[1] }) {
			return
		}
	}
	ts.Fatalf("%s does not report", args[1])
}

// postFile posts a file of JSON, in which START and END are now and 5 ms later.
func postFile(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: post URL file")
	}
	now := time.Now().UnixNano()
	body := strings.NewReplacer("START", strconv.FormatInt(now, 10), "END", strconv.FormatInt(now+5e6, 10)).Replace(ts.ReadFile(args[1]))
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Post(args[0], "application/json", strings.NewReader(body))
	ts.Check(err)
	defer resp.Body.Close()
	if ok := resp.StatusCode == http.StatusOK; ok == neg {
		ts.Fatalf("%s", resp.Status)
	}
}

// TestReadTokens: files of tokens that others can read, or that are not as they should be, are refused by line.
func TestReadTokens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	for text, want := range map[string]string{
		"# ours\n\nread abcdefghabcdefgh\n  write  x \n": "",
		"operate a alice\nread x\n":                      "",
		"":                                               "has no tokens",
		"read\n":                                         ":1: a line is",
		"\nread a b c\nwrite\n":                          ":2: a line is",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		all, err := readTokens(path)
		if want == "" && (err != nil || len(all) != 2 || all[1].Secret != "x") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, %v", text, all, err)
		}
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := readTokens(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("that others can read: %v", err)
	}
	if _, err := readTokens(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("that is not there")
	}
}

// number gives every number of a value another one, and tells found of each by its name.
func number(v reflect.Value, name string, next *int, found func(name, n string)) {
	*next++
	n := *next
	switch v.Kind() {
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(n))
		found(name, fmt.Sprint(n))
	case reflect.Uint64:
		v.SetUint(uint64(n))
		found(name, fmt.Sprint(n))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		number(v.Elem(), name, next, found)
	case reflect.Map:
		if v.Type().Elem().Kind() == reflect.Uint64 {
			v.Set(reflect.ValueOf(map[string]uint64{"a reason": uint64(n)}))
			found(name, fmt.Sprint(n))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				number(v.Field(i), name+"."+f.Name, next, found)
			}
		}
	}
}

// TestStatusTellsAll: a hub's status in text has all numbers of the status, so that nothing is lost without a word; and of what is not lost no line.
func TestStatusTellsAll(t *testing.T) {
	var s hub.Status
	want, next := map[string]string{}, 777_000
	number(reflect.ValueOf(&s).Elem(), "", &next, func(name, n string) { want[name] = n })
	delete(want, ".Forward.Bytes") // of memory
	var b strings.Builder
	if err := printHubStatus(&b, &s); err != nil {
		t.Fatal(err)
	}
	for name, n := range want {
		if !regexp.MustCompile(`\b` + n + `\b`).MatchString(b.String()) {
			t.Errorf("%s is not told", name)
		}
	}
	if len(want) < 25 {
		t.Errorf("%d numbers", len(want))
	}
	b.Reset()
	if err := printHubStatus(&b, &hub.Status{}); err != nil || regexp.MustCompile(`(?i)lost|left out|no room|other|beyond`).MatchString(b.String()) {
		t.Errorf("%v: of nothing it says\n%s", err, b.String())
	}
}
