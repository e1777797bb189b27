package stile

// tableSize is how many calls of a connection have a place of their own: a power
// of two.
const tableSize = 128

// table finds the calls of one connection by id. Ids are counted up, so those of
// the calls under way differ in their low bits, which name a place; what finds its
// place taken goes into a map. The zero value is empty. Its owner locks it.
type table[S any] struct {
	near [tableSize]struct {
		id uint64
		s  *S
	}
	far  map[uint64]*S
	size int
}

// get returns the call, or nil.
func (t *table[S]) get(id uint64) *S {
	p := &t.near[id%tableSize]
	if p.s != nil && p.id == id {
		return p.s
	}
	return t.far[id]
}

// put enters a call whose id is not in the table.
func (t *table[S]) put(id uint64, s *S) {
	t.size++
	p := &t.near[id%tableSize]
	if p.s == nil {
		p.id, p.s = id, s
		return
	}
	if t.far == nil {
		t.far = map[uint64]*S{}
	}
	t.far[id] = s
}

// remove takes a call out and tells whether it was there.
func (t *table[S]) remove(id uint64) bool {
	p := &t.near[id%tableSize]
	switch {
	case p.s != nil && p.id == id:
		p.s = nil
	case t.far[id] != nil:
		delete(t.far, id)
	default:
		return false
	}
	t.size--
	return true
}

// all calls f for each call. f must not change the table.
func (t *table[S]) all(f func(id uint64, s *S)) {
	for i := range t.near {
		if p := &t.near[i]; p.s != nil {
			f(p.id, p.s)
		}
	}
	for id, s := range t.far {
		f(id, s)
	}
}

// tableCall is an entry that takeAll has taken out.
type tableCall[S any] struct {
	id uint64
	s  *S
}

// takeAll empties the table.
func (t *table[S]) takeAll() []tableCall[S] {
	out := make([]tableCall[S], 0, t.size)
	t.all(func(id uint64, s *S) { out = append(out, tableCall[S]{id, s}) })
	*t = table[S]{}
	return out
}
