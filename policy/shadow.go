package policy

import (
	"time"

	"github.com/stile-ipc/stile/internal/lazyctx"
)

// observe makes a call as if there were no policy, and tells what the policy would have done.
// Caches and hedges are left out: what they would have answered is not known.
func (k *call) observe() error {
	r := k.r
	began := k.begun
	permit, _ := k.pass(began)
	admitted, _ := k.admit(began)
	refused := r.breaker != nil && !permit.asked || r.limit != nil && !admitted
	t := k.next()
	opts := t.opts
	if r.retry {
		t.seen = new(lazyctx.Observed)
		opts = t.seen.Options(opts)
	}
	err := errPanicked
	defer func() { k.settle(permit, admitted, err) }()
	err = k.side.send(k.ctx, r.Method, k.req, k.reply, k.cc, k.invoke, opts)
	k.overdue(err)
	if err != nil && r.retry && !refused {
		t.err, t.Report = err, t.seen.Report()
		if v := k.judge(t); v.again {
			k.tell(Retried, err, "after "+v.wait.String())
		}
	}
	return err
}

// overdue tells of a call that the file's timeout would have ended.
func (k *call) overdue(err error) {
	if took := k.side.p.now() - k.begun; k.r.shadow && took > k.r.timeout {
		k.tell(CallLate, err, "took "+took.Round(time.Millisecond).String())
	}
}
