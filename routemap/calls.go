package routemap

// call is a call that a trace has, or one side of a message.
type call struct {
	key    Key
	caller int // the span that made it; -1: none is known
	client int // the span of who calls; -1: that side does not tell
	server int // the span of who is called; -1: that side does not tell
	again  bool
	gap    int64 // ns; negative: not known
}

// waits is the span that stands for the call in its caller's time.
func (c *call) waits() int {
	if c.client >= 0 {
		return c.client
	}
	return c.server
}

// calls finds the calls between services, and to what is not traced.
func (t *Trace) calls() (all []call, nameless int) {
	for i := range t.nodes {
		n := &t.nodes[i]
		switch n.Kind {
		case Client:
			found := t.callsOf(i)
			if found == nil {
				nameless++
			}
			all = append(all, found...)
		case Producer:
			all = append(all, call{key: Key{t.self(i), queueOf(n.Span), Broker, operation(n.Span), Async}, caller: n.parent, client: i, server: -1, gap: -1})
		case Consumer:
			all = append(all, t.received(i))
		}
		if n.parent >= 0 && n.Kind != Consumer && t.crosses(i) && !t.toldByClient(n.parent) {
			all = append(all, t.served(i))
		}
	}
	return all, nameless
}

func (t *Trace) self(i int) Node { return Node{Service, t.nodes[i].Service} }

// crosses tells whether a span is another service's than its parent.
func (t *Trace) crosses(i int) bool {
	n := &t.nodes[i]
	p := &t.nodes[n.parent]
	return n.Service != p.Service || n.Kind == Server && p.Kind == Client
}

// toldByClient tells whether what is below a span is found with it.
func (t *Trace) toldByClient(i int) bool {
	return t.nodes[i].Kind == Client || t.nodes[i].Kind == Producer
}

// callsOf are those of a client's span: one, and more if it was answered more than once.
func (t *Trace) callsOf(i int) (all []call) {
	n := &t.nodes[i]
	for _, c := range n.children {
		s := &t.nodes[c]
		if s.Kind == Consumer || !t.crosses(c) {
			continue
		}
		one := call{key: t.key(n.Span, s.Span), caller: n.parent, client: i, server: c, again: n.Resent, gap: max(n.end-n.start-(s.end-s.start), 0)}
		if len(all) > 0 {
			one.client, one.again, one.gap = -1, true, -1
		}
		all = append(all, one)
	}
	if len(all) > 0 || n.Peer == "" {
		return all
	}
	to := Node{n.PeerKind, n.Peer}
	if to.Kind == "" {
		to.Kind = External
	}
	if to.Kind == External && t.services[to.Name] {
		to.Kind = Service // whose span is missing
	}
	return []call{{key: Key{t.self(i), to, n.Transport, operation(n.Span), Sync}, caller: n.parent, client: i, server: -1, again: n.Resent, gap: -1}}
}

// served is a call of which the caller has no span of its own; or one that looks as if it were, where kinds are not told: it does nothing else.
func (t *Trace) served(i int) call {
	n := &t.nodes[i]
	p := &t.nodes[n.parent]
	c := call{key: t.key(p.Span, n.Span), caller: n.parent, client: -1, server: i, again: n.Resent, gap: -1}
	if p.Kind == Unknown && n.Kind == Unknown && len(p.children) == 1 && !n.async && p.parent >= 0 {
		c.caller, c.client, c.gap = p.parent, n.parent, max(p.end-p.start-(n.end-n.start), 0)
	}
	if n.async {
		c.key.Mode = Async
	}
	return c
}

// received is a message that came. The time that it took is known if the one who sent it is in the trace.
func (t *Trace) received(i int) call {
	n := &t.nodes[i]
	c := call{key: Key{queueOf(n.Span), t.self(i), Broker, operation(n.Span), Async}, caller: -1, client: -1, server: i, gap: -1}
	sent := n.parent
	for _, l := range n.Links {
		if j, known := t.byID[l.ID]; known && l.Trace == t.ID {
			sent = j
		}
	}
	if sent >= 0 {
		c.gap = max(n.start-t.nodes[sent].end, 0)
		if c.key.From.Name == unnamedQueue && t.nodes[sent].Kind == Producer {
			c.key.From = queueOf(t.nodes[sent].Span)
		}
	}
	return c
}

const unnamedQueue = "?"

func queueOf(s *Span) Node {
	for _, name := range []string{s.Destination, s.Peer} {
		if name != "" {
			return Node{Queue, name}
		}
	}
	return Node{Queue, unnamedQueue}
}

// key names the route between two spans.
func (t *Trace) key(client, server *Span) Key {
	k := Key{Node{Service, client.Service}, Node{Service, server.Service}, client.Transport, operation(server), Sync}
	if k.Transport == "" {
		k.Transport = server.Transport
	}
	if k.Transport == TCP && client.Host != "" && client.Host == server.Host {
		k.Transport = TCPLoopback
	}
	return k
}
