// Package queue keeps batches of bytes on disk until they are delivered: over an end of the agent, a kill, and a receiver that
// is away for hours. It is bounded in bytes, gives its oldest batches up first, and counts every sample:
//
//	collected = delivered + in part + dropped, by reason + those that wait
//
// also over restarts, however the agent ended. A batch that was delivered when the agent was killed, before this could be noted,
// is delivered again: receivers tell it by its content (docs/otlp.md).
//
// # Why files of our own
//
// A batch comes every few seconds and is some kilobytes, so a file each is enough: written beside its name, flushed and renamed, it is there
// as a whole or not at all, and what a crash leaves can be read with cat. The OpenTelemetry Collector's exporter with its file storage
// does the same as a library, for 19 MB of program (bbolt, the Collector's component model, its telemetry), counts what it drops in
// metrics that start from zero after a restart, and decodes and encodes every batch again on its way.
//
// Where the disk refuses a batch, it waits in memory, within bounds.
package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pilotlight/pilotlight/exporter/durable"
)

// Bounds that a queue has where nothing is said of them.
const (
	DefaultMaxBytes = 256 << 20
	DefaultMaxAge   = 24 * time.Hour
	// memoryBytes bound what waits in memory.
	memoryBytes = 8 << 20
	// fileBytes are what a file takes beside its content: file systems give whole blocks.
	fileBytes = 4 << 10
)

// Why batches were dropped.
const (
	DropFull    = "queue_full" // newer ones needed the room
	DropExpired = "expired"    // it waited longer than MaxAge
	DropRefused = "refused"    // the receiver does not take it, and would not later
	DropNoSpace = "no_space"   // the disk refused it, and memory was full
	DropDamaged = "damaged"    // its file was not what had been written
	DropUnmade  = "unmade"     // no batch could be made of the samples
)

// DropReasons are all of them.
var DropReasons = []string{DropFull, DropExpired, DropRefused, DropNoSpace, DropDamaged, DropUnmade}

// Options of a Queue. Bounds that are 0 have their defaults.
type Options struct {
	// Dir is made where it is not there; "": everything waits in memory. The caller sees to it that there is no second Queue of it.
	Dir      string
	MaxBytes int64
	MaxAge   time.Duration
	Log      *slog.Logger // default: nothing is logged
}

// Stats count samples and batches, since the directory was made.
type Stats struct {
	// Collected = Delivered + Partial + the sum of Dropped + Pending.
	Collected, Delivered uint64
	// Partial are the samples of batches of which the receiver took a part.
	Partial uint64
	// Dropped are those that will not be delivered, by DropReasons.
	Dropped map[string]uint64
	Pending uint64
	// DroppedBatches are the batches that these were in.
	DroppedBatches map[string]uint64
	// Batches that wait, and what they take; Oldest is when the first of them was put.
	PendingBatches int
	PendingBytes   int64
	Oldest         time.Time
	// Last is the end of the last batch before the queue was opened; what ran since then and was not put is the gap of a restart.
	Last time.Time
}

// Outcome is what became of a batch.
type Outcome struct {
	// Dropped is a reason, or "" where it was delivered.
	Dropped string
	// Partial says that the receiver took a part of it.
	Partial bool
}

// account is the file of that name. Batches up to Through are settled in it.
type account struct {
	Collected counts            `json:"collected"`
	Delivered counts            `json:"delivered"`
	Partial   counts            `json:"partial"`
	Dropped   map[string]counts `json:"dropped"`
	Through   uint64            `json:"through"`
	// Settled are batches above Through that were settled before an older one.
	Settled []uint64  `json:"settled,omitempty"`
	Last    time.Time `json:"last"`
}

const (
	accountName = "account.json"
	tempSuffix  = ".tmp"
)

// entry is a batch that waits.
type entry struct {
	number uint64
	stored
	bytes int64  // in the file system, or in memory
	body  []byte // nil: in a file
	taken bool   // by Next
	// failures are how often its file could not be read, for another reason than that it is damaged.
	failures int
}

// Queue is safe for concurrent use, but for Next: one batch is under way at a time. Its owner closes it.
type Queue struct {
	options Options
	arrived chan struct{} // holds one token where something was put

	mu      sync.Mutex
	entries []*entry // the oldest first
	account account
	next    uint64 // number of the next batch
	last    time.Time
	bytes   int64 // of the files
	memory  int64
	pending uint64 // samples
	failing bool   // the disk refused the last batch
	// complained is the reason that was said last.
	complained string

	stats  atomic.Pointer[Stats] // for readers that do not wait for the disk
	closed bool
}

// Open reads what waits. Files of batches that are not sound are removed, and counted.
func Open(o Options) (*Queue, error) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.MaxAge <= 0 {
		o.MaxAge = DefaultMaxAge
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	q := &Queue{options: o, arrived: make(chan struct{}, 1), next: 1}
	q.account.Dropped = make(map[string]counts)
	defer q.publish()
	if o.Dir == "" {
		return q, nil
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	if err := q.read(); err != nil {
		return nil, fmt.Errorf("open queue %s: %w", o.Dir, err)
	}
	return q, nil
}

func (q *Queue) read() error {
	readErr := q.readAccount()
	if readErr != nil && !errors.Is(readErr, errDamaged) {
		return readErr
	}
	q.next = q.account.Through + 1
	for _, n := range q.account.Settled {
		q.next = max(q.next, n+1)
	}
	files, err := os.ReadDir(q.options.Dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(q.options.Dir, f.Name())
		number, ok := numberOf(f.Name())
		switch {
		case strings.HasSuffix(f.Name(), tempSuffix), ok && q.settled(number):
			err = os.Remove(path)
		case ok:
			err = q.admit(path, number)
		}
		if err != nil { // it stays there; the others go out nonetheless
			q.options.Log.Warn("a file of the queue is left alone", "err", err)
		}
	}
	slices.SortFunc(q.entries, func(a, b *entry) int { return int(int64(a.number - b.number)) })
	q.last = q.account.Last
	for _, e := range q.entries {
		q.next = max(q.next, e.number+1)
		if e.End.After(q.last) {
			q.last = e.End
		}
		// The account may be older than the batch.
		q.account.Collected.Samples = max(q.account.Collected.Samples, e.Collected.Samples)
		q.account.Collected.Batches = max(q.account.Collected.Batches, e.Collected.Batches)
	}
	q.account.Last = q.last
	q.reconcile(readErr != nil)
	if len(q.entries) > 0 {
		q.arrived <- struct{}{}
	}
	return nil
}

func (q *Queue) readAccount() error {
	text, err := os.ReadFile(filepath.Join(q.options.Dir, accountName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	var a account
	if err := json.Unmarshal(text, &a); err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	if a.Dropped == nil {
		a.Dropped = make(map[string]counts)
	}
	q.account = a
	return nil
}

// reconcile counts what was collected and is nowhere: it waited in memory when the agent was killed, or its file does not tell how much it was.
// Where the account itself was damaged, nobody knows, and what does not wait is taken to be delivered.
func (q *Queue) reconcile(lostAccount bool) {
	rest, reason := q.account.Collected, DropNoSpace
	settled := []counts{q.account.Delivered, q.account.Partial}
	for _, c := range q.account.Dropped {
		settled = append(settled, c)
	}
	for _, e := range q.entries {
		settled = append(settled, counts{e.Samples, 1})
		if e.Put.IsZero() {
			reason = DropDamaged
		}
	}
	for _, c := range settled {
		rest.Samples -= min(rest.Samples, c.Samples)
		rest.Batches -= min(rest.Batches, c.Batches)
	}
	if rest == (counts{}) {
		return
	}
	if lostAccount {
		q.options.Log.Warn("the account of a queue is damaged: what does not wait in it counts as delivered", "queue", q.options.Dir, "samples", rest.Samples)
		q.account.Delivered = rest
		return
	}
	q.options.Log.Warn("batches of a queue are gone", "queue", q.options.Dir, "reason", reason, "samples", rest.Samples)
	c := q.account.Dropped[reason]
	q.account.Dropped[reason] = counts{c.Samples + rest.Samples, c.Batches + rest.Batches}
}

// admit takes a file into the queue by its header.
func (q *Queue) admit(path string, number uint64) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return errors.Join(err, fmt.Errorf("%s is no file", path))
	}
	start, err := io.ReadAll(io.LimitReader(file, int64(fixedBytes+maxHeader)))
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	e := &entry{number: number, bytes: info.Size() + fileBytes}
	s, _, err := decodeHeader(start)
	if err == nil {
		e.stored = *s
	} // else what it held is not known; reading its body says so
	q.entries = append(q.entries, e)
	q.bytes += e.bytes
	q.pending += e.Samples
	return nil
}

func (q *Queue) settled(number uint64) bool {
	return number <= q.account.Through || slices.Contains(q.account.Settled, number)
}

func numberOf(name string) (uint64, bool) {
	stem, ok := strings.CutSuffix(name, batchSuffix)
	if !ok || len(stem) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(stem, 16, 64)
	return n, err == nil && n > 0
}

func (q *Queue) path(number uint64) string {
	return filepath.Join(q.options.Dir, fmt.Sprintf("%016x%s", number, batchSuffix))
}

// Put adds a batch; body must not be changed afterwards. It returns when the batch is on disk, or in memory where the disk refuses it. Older
// ones make room.
func (q *Queue) Put(h Header, body []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	e := q.collect(h)
	err := errInMemory
	if q.options.Dir != "" {
		e.bytes = int64(len(body)) + fileBytes
		q.makeRoom(e.bytes)
		err = q.write(e, body)
	}
	if err != nil {
		e.bytes, e.body = int64(len(body)), body
		q.makeMemory(e.bytes)
		q.memory += e.bytes
	} else {
		q.bytes += e.bytes
	}
	if failing := err != nil && q.options.Dir != ""; failing != q.failing {
		q.failing = failing
		if failing {
			q.options.Log.Warn("a batch cannot be written to the queue and waits in memory: free some space, or give the agent another --data-dir", "queue", q.options.Dir, "err", err)
		} else {
			q.options.Log.Info("the queue is on disk again", "queue", q.options.Dir)
		}
	}
	q.add(e)
	if err == nil {
		q.moveToDisk()
	}
	q.publish()
	select {
	case q.arrived <- struct{}{}:
	default:
	}
}

// Lose counts samples of which no batch could be made.
func (q *Queue) Lose(h Header) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	e := q.collect(h)
	e.body = []byte{} // it has no file
	q.add(e)
	q.drop([]*entry{e}, DropUnmade)
}

// collect begins an entry, and counts what is in it.
func (q *Queue) collect(h Header) *entry {
	q.account.Collected.add(h.Samples)
	e := &entry{number: q.next, stored: stored{Header: h, Collected: q.account.Collected, Put: time.Now().Round(0)}}
	q.next++
	if h.End.After(q.account.Last) {
		q.account.Last = h.End
	}
	return e
}

func (q *Queue) add(e *entry) {
	q.entries = append(q.entries, e)
	q.pending += e.Samples
}

// moveToDisk takes a few of those to disk that waited in memory because of it.
func (q *Queue) moveToDisk() {
	const few = 4
	moved := 0
	for _, e := range q.entries {
		if q.memory == 0 || moved == few {
			return
		}
		if e.body == nil || e.taken {
			continue
		}
		if q.bytes+e.bytes+fileBytes > q.options.MaxBytes || q.toDisk(e) != nil {
			return
		}
		moved++
	}
}

func (q *Queue) toDisk(e *entry) error {
	inMemory := e.bytes
	if err := q.write(e, e.body); err != nil {
		e.bytes = inMemory
		return err
	}
	e.body = nil
	q.memory -= inMemory
	q.bytes += e.bytes
	return nil
}

var errInMemory = errors.New("there is no directory")

func (c *counts) add(samples uint64) { c.Samples += samples; c.Batches++ }

// makeRoom drops the oldest files until so many bytes fit.
func (q *Queue) makeRoom(bytes int64) {
	q.dropOldest(q.bytes+bytes-q.options.MaxBytes, DropFull, func(e *entry) bool { return e.body == nil })
}

func (q *Queue) makeMemory(bytes int64) {
	reason := DropNoSpace
	if q.options.Dir == "" {
		reason = DropFull
	}
	q.dropOldest(q.memory+bytes-min(memoryBytes, q.options.MaxBytes), reason, func(e *entry) bool { return e.body != nil })
}

// dropOldest drops of some entries so many bytes.
func (q *Queue) dropOldest(bytes int64, reason string, of func(*entry) bool) {
	var list []*entry
	for _, e := range q.entries {
		if bytes <= 0 {
			break
		}
		if of(e) && !e.taken {
			list = append(list, e)
			bytes -= e.bytes
		}
	}
	q.drop(list, reason)
}

func (q *Queue) drop(list []*entry, reason string) {
	if len(list) == 0 {
		return
	}
	if q.complained != reason { // once, not for every batch of an outage
		q.complained = reason
		q.options.Log.Warn("batches are dropped undelivered", "queue", q.options.Dir, "reason", reason, "first of", list[0].Start)
	}
	q.settle(list, Outcome{Dropped: reason})
}

// write puts the batch into its file. The name appears when all of it is on disk.
func (q *Queue) write(e *entry, body []byte) (err error) {
	data, err := encodeBatch(&e.stored, body)
	if err != nil {
		return err
	}
	e.bytes = int64(len(data)) + fileBytes
	if err = writeFile(q.path(e.number), data); err != nil {
		os.Remove(q.path(e.number)) // where it is there, and not for sure
	}
	return err
}

// writeFile replaces a file as a whole. Without power a moment later it is there, or the one before.
func writeFile(path string, data []byte) error {
	file, err := os.OpenFile(path+tempSuffix, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		os.Remove(file.Name())
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

// A Batch is the oldest one of a queue.
type Batch struct {
	Header
	Body  []byte
	Put   time.Time
	entry *entry
}

// readAgain is the pause after a file could not be read, maxFailures how often that is tried.
const (
	readAgain   = time.Second
	maxFailures = 10
)

// Next waits for a batch and gives the oldest. It stays in the queue until it is settled, and no second one is given meanwhile.
func (q *Queue) Next(ctx context.Context) (*Batch, error) {
	for {
		b, again := q.oldest()
		if b != nil {
			return b, nil
		}
		var timer <-chan time.Time
		if again {
			timer = time.After(readAgain)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-q.arrived:
		case <-timer:
		}
	}
}

// oldest gives nil where nothing waits, or, again, where its file cannot be read just now.
func (q *Queue) oldest() (b *Batch, again bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropExpired()
	for len(q.entries) > 0 && !q.closed {
		e := q.entries[0]
		body := e.body
		if body == nil {
			data, err := os.ReadFile(q.path(e.number))
			if err == nil {
				_, body, err = decodeBatch(data)
			}
			if err != nil {
				e.failures++
				// No descriptor was free, perhaps, or the disk has its troubles: that says nothing of the batch.
				if !errors.Is(err, errDamaged) && !errors.Is(err, fs.ErrNotExist) && e.failures < maxFailures {
					return nil, true
				}
				q.options.Log.Warn("a batch in the queue cannot be read", "queue", q.options.Dir, "err", err)
				q.drop([]*entry{e}, DropDamaged)
				continue
			}
		}
		e.taken = true
		return &Batch{Header: e.Header, Body: body, Put: e.Put, entry: e}, false
	}
	return nil, false
}

func (q *Queue) dropExpired() {
	var list []*entry
	for _, e := range q.entries {
		if e.Put.IsZero() || time.Since(e.Put) <= q.options.MaxAge {
			break
		}
		list = append(list, e)
	}
	q.drop(list, DropExpired)
}

// Settle ends the way of a batch that Next gave.
func (q *Queue) Settle(b *Batch, o Outcome) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.settle([]*entry{b.entry}, o)
}

// settle counts batches, writes that down, and removes them: in this order, so that a kill between makes no sample count twice.
func (q *Queue) settle(list []*entry, o Outcome) {
	gone := make(map[*entry]bool, len(list))
	for _, e := range list {
		gone[e] = true
	}
	before := len(q.entries)
	q.entries = slices.DeleteFunc(q.entries, func(e *entry) bool { return gone[e] })
	if len(q.entries) == before {
		return
	}
	for _, e := range list {
		switch {
		case o.Dropped != "":
			c := q.account.Dropped[o.Dropped]
			c.add(e.Samples)
			q.account.Dropped[o.Dropped] = c
		case o.Partial:
			q.account.Partial.add(e.Samples)
		default:
			q.account.Delivered.add(e.Samples)
			q.complained = ""
		}
		q.account.Settled = append(q.account.Settled, e.number)
		q.pending -= e.Samples
		if e.body != nil {
			q.memory -= e.bytes
		} else {
			q.bytes -= e.bytes
		}
	}
	// All before the first that waits are settled; of later ones there are those for which room was made while it was under way.
	through := q.next - 1
	if len(q.entries) > 0 {
		through = q.entries[0].number - 1
	}
	q.account.Through = max(q.account.Through, through)
	q.account.Settled = slices.DeleteFunc(q.account.Settled, func(n uint64) bool { return n <= q.account.Through })
	q.publish()
	if q.options.Dir == "" {
		return
	}
	err := q.writeAccount()
	var errs []error
	for _, e := range list {
		if e.body == nil {
			if removeErr := os.Remove(q.path(e.number)); !errors.Is(removeErr, fs.ErrNotExist) {
				errs = append(errs, removeErr)
			}
		}
	}
	if err != nil { // perhaps there is room now
		err = q.writeAccount()
	}
	if err = errors.Join(append(errs, err)...); err != nil {
		q.options.Log.Warn("the queue cannot write down what it delivered: after a restart it may come twice", "queue", q.options.Dir, "err", err)
	}
}

func (q *Queue) writeAccount() error {
	text, err := json.Marshal(&q.account)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(q.options.Dir, accountName), text)
}

// Stats returns the counts so far. It does not wait for the disk.
func (q *Queue) Stats() Stats { return *q.stats.Load() }

// publish makes the counts of this moment those of Stats.
func (q *Queue) publish() {
	s := &Stats{
		Collected: q.account.Collected.Samples, Delivered: q.account.Delivered.Samples, Partial: q.account.Partial.Samples,
		Dropped: make(map[string]uint64), DroppedBatches: make(map[string]uint64), Pending: q.pending,
		PendingBatches: len(q.entries), PendingBytes: q.bytes + q.memory, Last: q.last,
	}
	for _, reason := range DropReasons {
		s.Dropped[reason], s.DroppedBatches[reason] = q.account.Dropped[reason].Samples, q.account.Dropped[reason].Batches
	}
	if len(q.entries) > 0 {
		s.Oldest = q.entries[0].Put
	}
	q.stats.Store(s)
}

// closeTime is what Close takes to write down what waited in memory.
const closeTime = time.Second

// Close ends the queue. What waits on disk stays there; what waits in memory, because the disk refused it, gets another try there, and
// else is counted as dropped. It may be called more than once.
func (q *Queue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil
	}
	q.closed = true
	if q.options.Dir == "" {
		return nil
	}
	var lost []*entry
	for began := time.Now(); q.memory > 0; {
		i := slices.IndexFunc(q.entries, func(e *entry) bool { return e.body != nil && !slices.Contains(lost, e) })
		if i < 0 {
			break
		}
		if time.Since(began) > closeTime || q.toDisk(q.entries[i]) != nil {
			lost = append(lost, q.entries[i])
		}
	}
	q.drop(lost, DropNoSpace)
	if err := q.writeAccount(); err != nil {
		return fmt.Errorf("close queue %s: %w", q.options.Dir, err)
	}
	return nil
}

// MaxAge is how old a batch gets.
func (q *Queue) MaxAge() time.Duration { return q.options.MaxAge }
