package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/routemap"
)

// hubToken is the environment variable with the token for hubs that want one.
const hubToken = "STILE_HUB_TOKEN"

const (
	askWithin = 2 * time.Minute
	maxAnswer = 512 << 20
)

func isURL(s string) bool {
	scheme, _, is := strings.Cut(s, "://")
	return is && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https"))
}

// answers is what each answer of the API has, by which one of another server's is told from it. A map, which may be long, has its version.
var answers = map[string]string{"status": "began", "events": "events", "policies": "policies", "processes": "processes", "load": "steps", "queues": "queues", "burn": "routes"}

// hubMap is a hub's map, of the time that the URL's from and to say.
func hubMap(ctx context.Context, at string) (*routemap.Report, map[string]uint64, error) {
	m := hub.Map{Report: new(routemap.Report)}
	if err := askHub(ctx, at, "map", &m); err != nil {
		return nil, nil, err
	}
	if m.Version == 0 {
		return nil, nil, noHub(at, errors.New("it has no version"))
	}
	if m.Version != routemap.ReportVersion {
		return nil, nil, fmt.Errorf("%s: its maps are of version %d, and this program reads %d: one of both is older", at, m.Version, routemap.ReportVersion)
	}
	if i := slices.IndexFunc(m.Routes, func(r routemap.Route) bool { return r.Stats == nil }); i >= 0 {
		return nil, nil, fmt.Errorf("%s: that is no map of a hub's: its route %s has no numbers", at, m.Routes[i].Key)
	}
	left := map[string]uint64{} // what the hub left out since it began is for its status
	if m.Damaged > 0 {
		left[damagedWindows] = uint64(m.Damaged)
	}
	return m.Report, left, nil
}

// damagedWindows is what a hub has kept and cannot read.
const damagedWindows = "windows that are damaged"

// askHub asks a hub's API.
func askHub(ctx context.Context, at, what string, answer any) error {
	u, err := url.Parse(at)
	if err != nil || u.Host == "" {
		return usageError{fmt.Errorf("%q is no URL of a hub", at)}
	}
	u.ForceQuery = false // a ? with nothing behind it
	shown := u.Redacted()
	u.Path = strings.TrimSuffix(u.Path, "/") + "/api/" + hub.APIVersion + "/" + what
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	if token := os.Getenv(hubToken); token != "" {
		if u.Scheme != "https" && !hub.Local(u.Host) {
			return usageError{fmt.Errorf("%s: the token in %s would go there for all to read: use https", shown, hubToken)}
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment}}
	resp, err := client.Do(req)
	if err != nil {
		if err = errors.Unwrap(err); strings.Contains(err.Error(), "malformed HTTP") {
			return fmt.Errorf("%s: what listens there does not speak HTTP; a hub's API is at another port, 4319 if its --http does not say otherwise", shown)
		}
		return fmt.Errorf("%s: %w: see that a hub runs there, with stile hub", shown, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", shown, err)
	case len(body) > maxAnswer:
		return fmt.Errorf("%s: its answer has more than %d MiB", shown, maxAnswer>>20)
	case resp.StatusCode == http.StatusUnauthorized:
		return fmt.Errorf("%s wants a token that reads: set %s", shown, hubToken)
	case resp.StatusCode != http.StatusOK:
		var said struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(body, &said) != nil || said.Error == "" {
			return fmt.Errorf("%s: %s: see that this is the address of a hub's API, as http://localhost:4319 is, with nothing behind it", shown, resp.Status)
		}
		if err = fmt.Errorf("%s: %s", shown, said.Error); resp.StatusCode == http.StatusBadRequest {
			return usageError{err}
		}
		return err
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return noHub(shown, err)
	}
	if has := answers[what]; has != "" {
		var parts map[string]json.RawMessage
		if err := json.Unmarshal(body, &parts); err != nil || parts[has] == nil {
			return noHub(shown, fmt.Errorf("it has no %s", has))
		}
	}
	return nil
}

// noHub says that an answer is none of a hub's, and why.
func noHub(shown string, why error) error {
	return fmt.Errorf("%s: that is no answer of a hub's API, %w: see that this is its address, as http://localhost:4319 is, with nothing behind it", shown, why)
}
