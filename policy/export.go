package policy

import (
	"encoding/json"
	"maps"
)

// ServiceConfig returns the file as the JSON that grpc.WithDefaultServiceConfig takes.
// vanilla leaves out x-stile, for parsers that know nothing but gRPC's keys.
func (c *Config) ServiceConfig(vanilla bool) []byte {
	whole := c.whole
	if vanilla {
		whole = stripped(whole)
	}
	out, err := json.MarshalIndent(whole, "", "  ")
	if err != nil {
		panic(err) // decoder.raw has let nothing in that JSON cannot say
	}
	return append(out, '\n')
}

// stripped returns the file without our key, where it may be.
func stripped(whole any) any {
	top, ok := whole.(map[string]any)
	if !ok {
		return whole
	}
	top = maps.Clone(top)
	delete(top, extensionKey)
	if entries, ok := top["methodConfig"].([]any); ok {
		list := make([]any, len(entries))
		for i, e := range entries {
			list[i] = e
			if m, ok := e.(map[string]any); ok {
				m = maps.Clone(m)
				delete(m, extensionKey)
				list[i] = m
			}
		}
		top["methodConfig"] = list
	}
	return top
}
