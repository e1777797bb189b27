package hub

import (
	"bytes"
	"encoding/json"
	"runtime"
	"sync"

	"github.com/stile-ipc/stile/routemap"
)

// maxEncoding is how many parts of a map's routes are written as JSON at once.
const maxEncoding = 4

// encoded is a map that is written faster than json.Marshal writes it: its routes, which are most of it, in parts.
type encoded struct{ Map }

func (e encoded) encode() ([]byte, error) {
	routes, err := encodeRoutes(e.Routes)
	if err != nil {
		return nil, err
	}
	rest, err := json.Marshal(struct {
		Map
		Routes *struct{} `json:"routes,omitempty"` // not the Map's
	}{Map: e.Map})
	if err != nil {
		return nil, err
	}
	return bytes.Join([][]byte{[]byte(`{"routes":[`), routes, []byte(`],`), rest[1:]}, nil), nil
}

// encodeRoutes writes routes, with commas between them.
func encodeRoutes(routes []routemap.Route) ([]byte, error) {
	n := min(runtime.GOMAXPROCS(0), maxEncoding)
	parts, errs := make([][]byte, n), make([]error, n)
	var encoding sync.WaitGroup
	for i := range n {
		part := routes[len(routes)*i/n : len(routes)*(i+1)/n]
		encoding.Go(func() {
			var text []byte
			if text, errs[i] = json.Marshal(part); errs[i] == nil && len(part) > 0 {
				parts[i] = text[1 : len(text)-1]
			}
		})
	}
	encoding.Wait()
	all := parts[:0]
	for i, text := range parts {
		if errs[i] != nil {
			return nil, errs[i]
		}
		if text != nil {
			all = append(all, text)
		}
	}
	return bytes.Join(all, []byte(",")), nil
}
