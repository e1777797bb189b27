package routemap

import "github.com/stile-ipc/stile/internal/packed"

func (c *carried) appendPacked(b []byte) []byte {
	b = appendUints(b, c.traces, c.bytes, uint64(len(c.chain)))
	for _, h := range c.chain {
		b = packed.AppendString(appendNode(appendNode(b, h.from), h.to), h.operation)
		answer := byte(0)
		if h.answer {
			answer = 1
		}
		b = append(b, answer)
	}
	return appendEvidence(b, c.evidence)
}

func readCarried(r *packed.Reader) *carried {
	c := &carried{traces: r.Uint(), bytes: r.Uint()}
	for range readCount(r, 2*leastNode+2, maxHops) {
		c.chain = append(c.chain, hop{readNode(r), readNode(r), r.String(), r.Below(2) == 1})
	}
	if c.evidence = readEvidence(r, maxEvidence); len(c.chain) == 0 {
		r.Fail()
	}
	return c
}

func (k followKey) appendPacked(b []byte) []byte {
	b = packed.AppendString(appendNode(b, k.from), k.within)
	for _, s := range []step{k.first, k.last} {
		b = packed.AppendString(appendNode(b, s.to), s.operation)
	}
	return b
}

func readFollowKey(r *packed.Reader) followKey {
	return followKey{readNode(r), r.String(), step{readNode(r), r.String()}, step{readNode(r), r.String()}}
}

func (f *follow) appendPacked(b []byte) []byte {
	b = appendTimes(appendUints(b, f.seen, f.used, f.against, f.groups), f.first, f.last, f.saved, f.handlers)
	return appendEvidence(b, f.evidence)
}

func readFollow(r *packed.Reader) *follow {
	return &follow{r.Uint(), r.Uint(), r.Uint(), r.Uint(), readTime(r), readTime(r), readTime(r), readTime(r), readEvidence(r, maxEvidence)}
}
