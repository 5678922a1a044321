// Package destination brings OTLP messages to receivers: Collectors, Pyroscope, Parca and everything else that speaks OTLP, by gRPC or
// by HTTP. A [Destination] takes encoded messages of one signal, keeps them in a queue on disk, and sends one after another, again and
// again where a receiver is away. It looks into no message but to compress it.
//
// Both protocols go through net/http: one way for TLS, proxies, time limits and dead connections. Errors never hold
// the value of a header, whatever the receiver answers.
package destination

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pilotlight/pilotlight/exporter/queue"
)

const (
	firstRetry = time.Second
	lastRetry  = time.Minute
	// longestWait bounds what a receiver may ask for.
	longestWait = time.Hour
	// maxTries of a message that the receiver answers with an error of its own, such as HTTP 500: it may be the receiver's, or this message's.
	maxTries = 5
)

// Stats are what a Destination has done. Those of the queue live as long as its directory, the others since the start.
type Stats struct {
	Name   string
	Signal Signal
	Queue  queue.Stats
	// Sent are messages and bytes that the receiver took, Rejected the items in them that it did not.
	Sent, SentBytes, Rejected uint64
	// Failures are tries that did not succeed, by what the receiver answered.
	Failures map[string]uint64
	// SendTime was spent on waiting for the receiver.
	SendTime time.Duration
	// Gap is how long before the start the last interval ended that was put into the queue, 0 where nothing was.
	Gap time.Duration
}

// Destination is one receiver of one signal. Safe for concurrent use. Its owner closes it.
type Destination struct {
	options Options
	client  *Client
	queue   *queue.Queue
	log     *slog.Logger
	cancel  context.CancelFunc
	done    chan struct{}
	hurry   chan struct{} // closed: no more waiting between tries
	once    sync.Once

	sent, sentBytes, rejected atomic.Uint64
	sendTime                  atomic.Int64
	gap                       time.Duration
	mu                        sync.Mutex
	failures                  map[string]uint64
}

// Start opens the queue in a directory and begins to send what waits there. It does not wait for the receiver.
func Start(o Options, q queue.Options) (*Destination, error) {
	client, err := NewClient(o)
	if err != nil {
		return nil, err
	}
	if q.Log == nil {
		q.Log = slog.New(slog.DiscardHandler)
	}
	opened, err := queue.Open(q)
	if err != nil {
		client.Close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &Destination{
		options: o, client: client, queue: opened, log: q.Log, cancel: cancel,
		done: make(chan struct{}), hurry: make(chan struct{}), failures: make(map[string]uint64),
	}
	if last := opened.Stats().Last; !last.IsZero() && o.Signal == Profiles {
		d.gap = max(0, time.Since(last))
		d.log.Info("a restart: nothing was put into the queue for a while", "to", o.Name(), "gap", d.gap.Round(time.Millisecond))
	}
	go d.run(ctx)
	return d, nil
}

// Put hands a message over. It returns when the message is in the queue.
func (d *Destination) Put(h queue.Header, m *Message) error {
	body, err := m.body(d.options.Compression)
	if err != nil {
		d.queue.Lose(h)
		return err
	}
	h.Encoding = d.options.Compression
	d.queue.Put(h, body)
	return nil
}

// Lose counts what no message could be made of.
func (d *Destination) Lose(h queue.Header) { d.queue.Lose(h) }

func (d *Destination) run(ctx context.Context) {
	defer close(d.done)
	said := ""
	for {
		b, err := d.queue.Next(ctx)
		if err != nil {
			return
		}
		wait := backoff{}
		for tries := 1; ; tries++ {
			began := time.Now()
			answer, err := d.client.Send(ctx, b.Body, b.Encoding)
			d.sendTime.Add(int64(time.Since(began)))
			if err == nil {
				d.deliver(b, answer)
				if said != "" {
					said = ""
					d.log.Info("the receiver takes messages again", "to", d.options.Name())
				}
				break
			}
			if ctx.Err() != nil {
				return
			}
			var e *Error
			errors.As(err, &e)
			d.fail(e.Code)
			if e.Verdict == Never || e.Verdict == Doubtful && tries >= maxTries {
				d.log.Warn("the receiver refuses a message, which is dropped", "to", d.options.Name(), "samples", b.Samples, "err", err)
				d.queue.Settle(b, queue.Outcome{Dropped: queue.DropRefused})
				break
			}
			delay := max(wait.next(), min(e.After, longestWait))
			if said != e.Code { // once, not for every try
				said = e.Code
				d.log.Warn("a message could not be delivered and waits in the queue", "to", d.options.Name(), "err", err, "next try in", delay.Round(time.Millisecond))
			}
			if time.Since(b.Put) > d.queue.MaxAge() {
				d.queue.Settle(b, queue.Outcome{Dropped: queue.DropExpired})
				break
			}
			if !d.sleep(ctx, delay) {
				return
			}
		}
	}
}

// sleep is false where no further try may be made.
func (d *Destination) sleep(ctx context.Context, delay time.Duration) bool {
	hurry := d.hurry
	select {
	case <-hurry: // the second try of an ending agent
		hurry, delay = nil, firstRetry
	default:
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-hurry:
	case <-ctx.Done():
		return false
	}
	return true
}

func (d *Destination) deliver(b *queue.Batch, a Answer) {
	d.sent.Add(1)
	d.sentBytes.Add(uint64(len(b.Body)))
	outcome := queue.Outcome{}
	switch {
	case a.Rejected > 0:
		d.rejected.Add(uint64(a.Rejected))
		d.log.Warn("the receiver took a message in part", "to", d.options.Name(), "rejected", a.Rejected, "of", b.Items, "message", a.Message)
		outcome.Partial = true
		if uint64(a.Rejected) >= b.Items {
			outcome = queue.Outcome{Dropped: queue.DropRefused}
		}
	case a.Message != "":
		d.log.Warn("the receiver warns", "to", d.options.Name(), "message", a.Message)
	}
	d.queue.Settle(b, outcome)
}

func (d *Destination) fail(code string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failures[code]++
}

// Stats returns the counts so far.
func (d *Destination) Stats() Stats {
	s := Stats{
		Name: d.options.Name(), Signal: d.options.Signal, Queue: d.queue.Stats(), Sent: d.sent.Load(), SentBytes: d.sentBytes.Load(),
		Rejected: d.rejected.Load(), SendTime: time.Duration(d.sendTime.Load()), Gap: d.gap, Failures: make(map[string]uint64),
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for code, n := range d.failures {
		s.Failures[code] = n
	}
	return s
}

// Signal is what it takes.
func (d *Destination) Signal() Signal { return d.options.Signal }

// Hurry ends a wait between tries, and makes the next ones short.
func (d *Destination) Hurry() { d.once.Do(func() { close(d.hurry) }) }

// Flush waits until nothing waits in the queue, or the context ends.
func (d *Destination) Flush(ctx context.Context) {
	for tick := time.NewTicker(10 * time.Millisecond); d.queue.Stats().PendingBatches > 0; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-d.done:
			tick.Stop()
			return
		case <-tick.C:
		}
	}
}

// Close breaks off what is under way. What waits stays in the queue. It may be called more than once.
func (d *Destination) Close() error {
	d.cancel()
	<-d.done
	d.client.Close()
	return d.queue.Close()
}

// backoff doubles the time between tries, half of it at random: receivers that come back are not met by all senders at once.
type backoff struct{ last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, firstRetry), lastRetry)
	return b.last/2 + rand.N(b.last/2)
}
