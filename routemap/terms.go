package routemap

import "fmt"

// Term is a word of the map and what it means.
type Term struct {
	Name       string `json:"name"`
	Definition string `json:"definition"`
}

// Terms are the words of reports, with the numbers that are used.
func Terms() []Term {
	return []Term{
		{"route", "who calls whom, by what, which operation, and whether the caller waits"},
		{"critical path", "what a root's duration was spent with: walking back from its end, the span that ended last is what was waited for; where none had, the span above worked itself. A child that runs longer than its parent is clipped, one that nobody waits for (a link, a consumer, one that begins after its parent's end) is left out"},
		{"through", "share of all roots' durations that critical paths spent behind a route: on the way, in who is called, and in whom that one calls"},
		{"gap", "what a call took longer for who calls than for who is called: transport, queues, codec. Of a message: from sent until it was received"},
		{"client queue", "time until a call's first frame may be written: for a local door, a place among the server's streams, a window, the policy's limit. Counted by Stile, as the next three; the four are all of a call's time"},
		{"server queue", "time from when a call was received until its handler begins: for a worker, a place among those that run, the policy's admission"},
		{"handler", "time from then until the answer is encoded"},
		{"transport", "all the rest of a call's time: codec, rings or sockets, wake-ups, run queues"},
		{"contaminated", fmt.Sprintf("a window of 10 s in which others used more than %g processors of a host, on average: what the host used less what its processes that report did, and the hub. What its hypervisor took counts as others', and so do interrupts of which the kernel charges no process. It is not known of a window in which one of them fell silent", ContaminatedFrom)},
		{"decisions", "how often policies decided what became of a route's calls, as Stile counts. Retries are attempts after the first, hedges attempts beside one under way: both are calls, too. Refused by the breaker or the limit was not sent; no budget to retry: a retry or hedge that was not made, because too many were. Shed by the server: refused by its admission before the handler began. Cache hits and coalesced calls were answered without one of their own, and old answers stood in for calls that failed. Late: the deadline had passed before it was sent, or when it arrived"},
		{"open", fmt.Sprintf("calls that have begun and not ended, as processes see at moments that no call has chosen, about each second. A route is inconsistent if more or fewer are open than come in a second times how long they take (Little's law), by %.0f %% or more and more than chance explains, with %d or more that were seen or should have been: some do not end, or are not counted", 100*littleShare, littleSeen)},
		{"deadline left", "the time until a call's deadline when it arrived at its server, of calls that have one"},
		{"hot path", fmt.Sprintf("a way from a root, and the share of the root's durations that was spent at its end, on critical paths. Hot is a share of %.0f %% or more, or one of the fewest that make %.0f %%. The tail is the share among the slowest %.0f %% of traces", 100*hotShare, 100*hotTogether, 100*(1-tailFrom))},
		{"blocking point", fmt.Sprintf("a route whose callers wait for it while nothing else of theirs runs: how many do at once, on average, and the share of their time. Flagged from %.0f caller or %.0f %% on. Of a host's sockets: a send queue has 90 %% of its buffer or more in 10 %% of the samples, TCP's peer had no room for 10 %% of the time in which there was something to send (which was 1 %% of all or more), or somebody waits to be accepted in 5 %% of the samples", blockedCallers, 100*blockedShare)},
		{"sync-chain depth", "how many calls, each waiting for the next, are nested on a critical path"},
		{PlusOne, fmt.Sprintf("%d or more calls of one span to the same operation that hardly overlap (sum of durations at most %.2f of the time that any of them ran) and take %.0f %% of the root or more", plusOneLeast, plusOneOverlap, 100*plusOneShare)},
		{Chatty, fmt.Sprintf("%d or more calls for each trace that has the route, of less than %d bytes at the median, half of whose time is the gap", chattyCalls, chattyBytes)},
		{Duplicated, fmt.Sprintf("%.0f %% or more of a route's calls ask what was asked in the minute before and get the same answer, byte by byte, with %d bytes or more each; of %d calls or more that were looked at, which are all up to 128 in 10 s, and then one in 16", 100*duplicatedShare, duplicatedBytes, duplicatedCalls)},
		{Backpressure, fmt.Sprintf("a queue whose senders waited for room more than %.0f %% of the time (those that waited at once each count), or that had %.0f %% or more of the bytes that it may have in %.0f %% of the windows or more, or to which more came than a group was done with in %d windows running, by %.0f %% or more each, with %d messages or more left. Full in: the bytes that there is room for, by those a second that it grew on average. Of a host's sockets, looked at again and again: a send queue has %.0f %% of its buffer or more, or a listener's backlog of its limit, in %.0f %% of the samples or more", 100*blockedLeast, 100*fullFrom, 100*fullLeast, growingWindows, 100*growingBy, growingLeast, 100*fullFrom, 100*fullLeast)},
		{"lag", "messages of a topic that were never delivered to a group; in flight are those that were, and are not done with"},
		{CarriedOn, fmt.Sprintf("the same bytes, 1 KiB or more, on %d or more routes of a trace, asked or answered, byte by byte as processes saw them: in %d traces or more, and %.0f %% or more of those that have the last route. Of a body the smallest such fields are told apart, 16 at most", carriedRoutes, carriedTraces, 100*carriedShare)},
		{Serial, fmt.Sprintf("a call that begins after another one's end, each %.0f %% or more of their handler's time, that asks with nothing of the answer: no text, number or bytes of the answer that the handler did not have before is in the request. In %d handlers or more; dropped if the two ever run at once, or if more than %.0f %% do use the answer. Suspected, as it is not known whether the answer decides if the second call is made, nor what is computed of it", 100*followShare, followGroups, 100*followCoincidence)},
		{Unused, fmt.Sprintf("the last of a handler's calls, %.0f %% or more of its time, nothing of whose answer is in what the handler answers. In %d handlers or more, that call something else, too, and answer something; dropped if a handler fails with it, or if more than %.0f %% do use the answer. Suspected, as it is not known whether its failure matters. Such a call is not told of as the second of a serial pair", 100*followShare, followGroups, 100*followCoincidence)},
		{"budget burn", fmt.Sprintf("share of bad calls to the share that an objective allows; bad is one that fails or is slower than the objective has it. Page at %g in 1 h and 5 min, and at %g in 6 h and 30 min; ticket at %g in 3 d and 6 h; each with %d bad calls or more", burnRules[0].burn, burnRules[1].burn, burnRules[2].burn, burnLeast)},
		{Repeated, fmt.Sprintf("calls that ask for what their trace has asked for before, by URL or statement: %.0f %% or more of those of which that is known. Suspected, as the answers are not known", 100*repeatedLeast)},
	}
}
