package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func openPolicies(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestPolicies: a version is known from when it was seen first, in whatever order processes tell of it and however often, and its text is found by how its ID begins; also by who opens the file again.
func TestPolicies(t *testing.T) {
	dir := t.TempDir()
	s := openPolicies(t, dir)
	file, code := PolicySource{Name: "/etc/p.yaml"}, PolicySource{Service: "cart"}
	at := func(minute int) time.Time { return time.Unix(1e9, 0).Add(time.Duration(minute) * time.Minute).UTC() }
	put := func(minute int, all ...Policy) {
		t.Helper()
		for i := range all {
			all[i].Since = at(minute)
		}
		if err := s.PutPolicies(t.Context(), at(minute), all); err != nil {
			t.Fatal(err)
		}
	}
	one, two := PolicyID{0xab, 1}, PolicyID{0xab, 2}
	put(0, Policy{file, one, "v1", "text one", at(0)}, Policy{code, one, "v1", "", at(0)})
	put(1, Policy{file, one, "v1", "", at(0)})
	put(2, Policy{file, two, "v2", "", at(0)})
	if _, _, err := s.PolicyText(t.Context(), "ab02"); !errors.Is(err, ErrNoPolicy) {
		t.Errorf("%v", err)
	}
	put(3, Policy{file, two, "v2", "text two", at(0)})
	put(20, Policy{file, two, "v2", "", at(0)})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openPolicies(t, dir)
	defer s.Close()
	put(21, Policy{file, two, "v2", "", at(0)})
	all, err := s.Policies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range all {
		got = append(got, fmt.Sprint(v.Source, v.ID.String()[:4], " ", v.Version, " ", v.First.Sub(at(0)), " ", v.Seen.Sub(at(0)), " ", v.Kept))
	}
	want := []string{"{ cart}ab01 v1 0s 0s true", "{/etc/p.yaml }ab01 v1 0s 0s true", "{/etc/p.yaml }ab02 v2 2m0s 21m0s true"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q\nwant %q", got, want)
	}
	if id, text, err := s.PolicyText(t.Context(), "ab01"); err != nil || id != one || text != "text one" {
		t.Errorf("%s, %q, %v", id, text, err)
	}
	if _, _, err := s.PolicyText(t.Context(), "ab"); !errors.Is(err, ErrManyPolicies) {
		t.Errorf("%v", err)
	}
	if _, _, err := s.PolicyText(t.Context(), "%"); !errors.Is(err, ErrNoPolicy) {
		t.Errorf("%v", err)
	}
}

// TestPoliciesBounded: of too many, of too many bytes, and of old ones, those go that were not seen for longest.
func TestPoliciesBounded(t *testing.T) {
	defer func(n int, b int64, m int) { maxPolicyTexts, maxPolicyBytes, maxPolicySeen = n, b, m }(maxPolicyTexts, maxPolicyBytes, maxPolicySeen)
	maxPolicyTexts, maxPolicyBytes, maxPolicySeen = 10, 500, 20
	s := openPolicies(t, t.TempDir())
	defer s.Close()
	now := time.Unix(1e9, 0)
	texts := func() (n int) {
		t.Helper()
		if err := s.view.QueryRowContext(context.Background(), "SELECT count(*) FROM policies").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	source := PolicySource{Name: "p"}
	put := func(n, size int) {
		t.Helper()
		now = now.Add(time.Minute)
		if err := s.PutPolicies(t.Context(), now, []Policy{{source, PolicyID{byte(n)}, "", strings.Repeat("x", size), now}, {source, PolicyID{255}, "", "stays", now}}); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 40 {
		put(n, 10)
	}
	if all, err := s.Policies(t.Context()); err != nil || len(all) != maxPolicySeen || texts() != maxPolicyTexts {
		t.Errorf("%d versions, %d texts, %v", len(all), texts(), err)
	}
	for n := range 5 {
		put(100+n, 200)
	}
	if n := texts(); n != 3 {
		t.Errorf("%d texts", n)
	}
	if _, text, err := s.PolicyText(t.Context(), "ff"); err != nil || text != "stays" {
		t.Errorf("%q, %v", text, err)
	}
	now = now.Add(policiesKept)
	put(200, 10)
	if all, err := s.Policies(t.Context()); err != nil || len(all) != 2 || texts() != 2 {
		t.Errorf("%d versions, %d texts, %v", len(all), texts(), err)
	}
}

// TestPoliciesLater: a file of before there were policies takes them.
func TestPoliciesLater(t *testing.T) {
	dir := t.TempDir()
	s := openPolicies(t, dir)
	if _, err := s.db.ExecContext(t.Context(), "DROP TABLE policies; DROP TABLE policies_seen"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openPolicies(t, dir)
	defer s.Close()
	if err := s.PutPolicies(t.Context(), time.Now(), []Policy{{ID: PolicyID{1}, Text: "t"}}); err != nil {
		t.Error(err)
	}
}
