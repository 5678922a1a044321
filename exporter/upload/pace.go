package upload

import (
	"context"
	"io"
	"time"
)

// pace spreads bytes over time.
type pace struct {
	perSecond int64 // 0: no limit
	free      time.Time
}

// wait holds n bytes back until it is their turn.
func (p *pace) wait(ctx context.Context, n int) error {
	if p.perSecond <= 0 {
		return ctx.Err()
	}
	if now := time.Now(); p.free.Before(now) {
		p.free = now
	}
	p.free = p.free.Add(time.Duration(n) * time.Second / time.Duration(p.perSecond))
	return sleep(ctx, time.Until(p.free))
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// paced reads a file at the pace, and cancels the request where it stalls. It is deliberately no more than a Reader:
// of what can be read twice the client would send a failed request again by itself, at once.
type paced struct {
	ctx   context.Context
	file  io.Reader
	pace  *pace
	alive func()
	sent  int64
}

// pieceBytes is what the pace is kept by.
const pieceBytes = 32 << 10

func (r *paced) Read(b []byte) (int, error) {
	r.alive()
	b = b[:min(len(b), pieceBytes)]
	n, err := r.file.Read(b)
	if n > 0 {
		if err := r.pace.wait(r.ctx, n); err != nil {
			return 0, err
		}
	}
	r.sent += int64(n)
	r.alive()
	return n, err
}
