package routemap

import (
	"encoding/json"
	"testing"
)

// TestReportJSON: a report that was written as JSON is read as it was.
func TestReportJSON(t *testing.T) {
	m := New()
	for _, tr := range someTraces(3, 50) {
		m.Add(tr)
	}
	want := m.Report()
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got := new(Report)
	if err := json.Unmarshal(text, got); err != nil {
		t.Fatal(err)
	}
	for i, r := range want.Routes {
		if got.Routes[i].Key != r.Key || got.Routes[i].Client.Quantile(0.5) != r.Client.Quantile(0.5) || got.Routes[i].Client.Count() == 0 && r.Client.Count() > 0 {
			t.Errorf("%s: p50 %d, was %d", r.Key, got.Routes[i].Client.Quantile(0.5), r.Client.Quantile(0.5))
		}
	}
	if again, err := json.Marshal(got); err != nil || string(again) != string(text) {
		t.Errorf("written again it differs: %v", err)
	}
	if d := Diff(want, got); len(d) == 0 || d[0].Differs() {
		t.Errorf("%+v", d)
	}
}
