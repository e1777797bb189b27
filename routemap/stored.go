package routemap

import "fmt"

// What is kept of samples when a map is stored: it is merged with others.
const (
	storedSamples = 64
	storedRecords = 500
)

// Store calls put with each route and what is known of it, bytes that are put's until it returns, and returns the rest of the map. [Map.Load] and [Map.LoadRoute]
// merge them into a map, of which those of samples are fewer then. The time that it is of is not stored.
func (m *Map) Store(put func(Key, []byte) error) (rest []byte, err error) {
	var data []byte
	for k, s := range m.routes {
		of := *s
		of.Samples = some(m.rand, s.Samples, storedSamples)
		data = of.appendPacked(data[:0])
		if err := put(k, data); err != nil {
			return nil, err
		}
	}
	return m.appendRest(nil), nil
}

// LoadRoute merges what Store has put for a route.
func (m *Map) LoadRoute(k Key, data []byte) error {
	to := m.routes[k]
	s, wanted := &m.spare, maxEvidence
	if to == nil {
		s = new(Stats)
	} else {
		wanted -= len(to.Evidence)
	}
	if err := s.readPacked(data, wanted); err != nil {
		return fmt.Errorf("route %s: %w", k, err)
	}
	if to == nil {
		m.routes[k] = s
		m.fitRoutes(false)
		return nil
	}
	to.merge(m.rand, s)
	return nil
}

// Load merges the rest of a map that was stored.
func (m *Map) Load(rest []byte) error {
	o := New()
	if err := o.readRest(rest); err != nil {
		return err
	}
	m.Merge(o)
	return nil
}
