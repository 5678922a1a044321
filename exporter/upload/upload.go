// Package upload copies what the history has finished to S3-compatible object storage, where the files of all hosts
// together are one table (docs/fleet.md).
//
// It knows the history by its directory alone, and stands in no one's way: whether the storage answers or not, profiles
// are written, compacted and removed as without it. A file that retention removed before it could be sent is counted.
//
// What is in the bucket is the only memory: it is listed at the start, and a file that is there by name and
// size is not sent again. One request puts a file, so that it is there as a whole or not at all, and nothing is left of one that broke off.
package upload

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/pilotlight/pilotlight/exporter/store"
)

// Options of an Uploader.
type Options struct {
	URL      string // s3://BUCKET/PREFIX; the prefix may be left out
	Endpoint string // of the service, https://HOST:PORT; "": Amazon's
	Region   string // "": the service is asked
	// CredentialsFile is in the format of ~/.aws/credentials; "": AWS_ACCESS_KEY_ID and so on of the environment, or that file.
	CredentialsFile string
	BytesPerSecond  int64 // at most; 0: no limit
	// Dir is the data directory, Host the host in it whose files are sent.
	Dir, Host string
	// Every is how often the directory is looked at, on average; 0: half a minute.
	Every time.Duration
	Log   *slog.Logger
}

// Stats say what an Uploader has done since it was started.
type Stats struct {
	Files, Bytes uint64 // sent
	// Present files were in the bucket already at the start.
	Present uint64
	// Failures are requests that did not succeed; they are tried again.
	Failures uint64
	// Damaged files were not sent: their content does not fit its checksums.
	Damaged uint64
	// Removed objects were hours of which the bucket holds the day.
	Removed uint64
	// DroppedFiles were removed from the host before they were sent.
	DroppedFiles, DroppedBytes uint64
	// PendingFiles wait to be sent.
	PendingFiles, PendingBytes uint64
}

const (
	defaultEndpoint = "https://s3.amazonaws.com"
	defaultEvery    = 30 * time.Second
	firstDelay      = 3 * time.Second // at most
	// stalled is how long a request may take without a byte that moves.
	stalled = 2 * time.Minute
	// minRate moves a piece in a small part of that: less would fail each time, and could not keep up with a day of one busy CPU in hours.
	minRate = 10_000
	// Tries after failures: the first soon, then ever later.
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

// An Uploader sends files until it is closed. Safe for concurrent use.
type Uploader struct {
	options Options
	client  *minio.Client
	creds   *credentials.Credentials
	bucket  string
	prefix  string // "" or ending in /
	pace    pace
	cancel  context.CancelFunc
	done    chan struct{}

	// there are the sizes of what is in the bucket of this host, by path; nil: not listed yet.
	there map[string]int64
	// pending are the files of the last look that were not sent then.
	pending map[string]int64
	// damaged are those that are not sent.
	damaged map[string]int64
	broken  bool // the last round failed

	mu    sync.Mutex
	stats Stats
}

// Check says whether the options make sense; nothing is opened.
func (o *Options) Check() error {
	if _, _, err := o.place(); err != nil {
		return err
	}
	if _, err := o.endpoint(); err != nil {
		return err
	}
	if o.BytesPerSecond != 0 && o.BytesPerSecond < minRate {
		return fmt.Errorf("upload rate %d: want %d bytes a second or more, or 0 for no limit", o.BytesPerSecond, minRate)
	}
	return nil
}

// place takes the URL apart.
func (o *Options) place() (bucket, prefix string, err error) {
	rest, ok := strings.CutPrefix(o.URL, "s3://")
	bucket, prefix, _ = strings.Cut(rest, "/")
	if !ok || bucket == "" || strings.ContainsAny(rest, "?#@") {
		return "", "", fmt.Errorf("upload URL %q: want s3://BUCKET/PREFIX", o.URL)
	}
	if prefix = strings.Trim(path.Clean("/"+prefix), "/"); prefix != "" {
		prefix += "/"
	}
	return bucket, prefix, nil
}

func (o *Options) endpoint() (*url.URL, error) {
	text := o.Endpoint
	if text == "" {
		text = defaultEndpoint
	}
	u, err := url.Parse(text)
	// The text is not repeated where it may hold a password.
	if err != nil || u.User != nil {
		return nil, errors.New("upload endpoint: want http(s)://HOST:PORT without user and password")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, fmt.Errorf("upload endpoint %q: want http(s)://HOST:PORT", text)
	}
	return u, nil
}

// Start begins to upload in the background. Close the Uploader. It fails where the options or the credentials are wrong, not where the
// storage does not answer.
func Start(o Options) (*Uploader, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	bucket, prefix, err := o.place()
	if err != nil {
		return nil, err
	}
	endpoint, err := o.endpoint()
	if err != nil {
		return nil, err
	}
	provider := &keys{file: o.CredentialsFile}
	creds := credentials.New(provider)
	if _, err := provider.Retrieve(); err != nil {
		return nil, err
	}
	secure := endpoint.Scheme == "https"
	transport, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, fmt.Errorf("upload: %w", err)
	}
	transport.ResponseHeaderTimeout = stalled
	client, err := minio.New(endpoint.Host, &minio.Options{
		Creds: creds, Secure: secure, Transport: transport, Region: o.Region,
		TrailingHeaders: secure, // a checksum over all; without TLS each piece is signed
		MaxRetries:      1,      // the rounds are the retries
	})
	if err != nil {
		return nil, fmt.Errorf("upload to %s: %w", o.URL, err)
	}
	if o.Every <= 0 {
		o.Every = defaultEvery
	}
	ctx, cancel := context.WithCancel(context.Background())
	u := &Uploader{
		options: o, client: client, creds: creds, bucket: bucket, prefix: prefix, pace: pace{perSecond: o.BytesPerSecond},
		cancel: cancel, done: make(chan struct{}), damaged: make(map[string]int64),
	}
	go u.run(ctx, transport)
	return u, nil
}

// Close breaks off what is under way; the next start sends it. It may be called more than once.
func (u *Uploader) Close() error {
	u.cancel()
	<-u.done
	return nil
}

// Stats returns the counts so far.
func (u *Uploader) Stats() Stats {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.stats
}

func (u *Uploader) count(add func(*Stats)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	add(&u.stats)
}

func (u *Uploader) run(ctx context.Context, transport *http.Transport) {
	defer close(u.done)
	defer transport.CloseIdleConnections()
	// The hosts of a fleet finish their hours at the same moment, and were perhaps started together: none keeps step with another.
	delay := rand.N(min(u.options.Every, firstDelay))
	failures := 0
	for sleep(ctx, delay) == nil {
		err := u.round(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			if u.broken {
				u.options.Log.Info("the upload goes on", "to", u.options.URL)
			}
			u.broken, failures, delay = false, 0, u.options.Every/2+rand.N(u.options.Every)
		default:
			u.count(func(s *Stats) { s.Failures++ })
			u.creds.Expire() // perhaps they were the reason
			delay = backoff(failures)
			failures++
			if !u.broken {
				u.options.Log.Warn("the upload failed and will be tried again; the history goes on", "to", u.options.URL, "err", err, "in", delay)
			}
			u.broken = true
		}
	}
}

// backoff is how long to wait after a number of failures before: anything up to twice as long each time.
func backoff(failures int) time.Duration {
	longest := lastRetry
	if failures < 16 {
		longest = min(lastRetry, firstRetry<<failures)
	}
	return longest/2 + rand.N(longest/2)
}

// round sends what has been finished since the last one, and ends at the first failure.
func (u *Uploader) round(ctx context.Context) error {
	files, err := store.Compacted(u.options.Dir, u.options.Host)
	if err != nil {
		return err
	}
	if err := u.missGone(files); err != nil {
		return err
	}
	if u.there == nil {
		if err := u.list(ctx); err != nil {
			return err
		}
	}
	for _, f := range files {
		if _, ok := u.pending[f.Path]; !ok {
			continue
		}
		err := u.verify(f)
		if err == nil {
			err = u.put(ctx, f)
		}
		switch {
		case errors.As(err, new(*store.DamageError)):
			u.leaveOut(f, err)
		case errors.Is(err, fs.ErrNotExist): // it has just been compacted or removed: the next round tells which
			return nil
		case err != nil:
			return err
		}
	}
	return u.removeMerged(ctx, files)
}

func (u *Uploader) verify(f store.File) error {
	if err := store.Verify(filepath.Join(u.options.Dir, filepath.FromSlash(f.Path))); err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	return nil
}

// leaveOut notes a damaged file, which is not sent.
func (u *Uploader) leaveOut(f store.File, err error) {
	u.damaged[f.Path] = f.Bytes
	delete(u.pending, f.Path)
	u.count(func(s *Stats) { s.Damaged++ })
	u.countPending()
	u.options.Log.Warn("a file of the history is damaged and is not uploaded", "err", err)
}

// missGone compares the directory with what was there at the last look, and counts what went without having been sent.
func (u *Uploader) missGone(files []store.File) error {
	now := make(map[string]int64, len(files))
	for _, f := range files {
		now[f.Path] = f.Bytes
	}
	var gone []string
	for p := range u.pending {
		if _, ok := now[p]; !ok {
			gone = append(gone, p)
		}
	}
	merged, err := store.Merged(u.options.Dir, files, gone)
	if err != nil {
		return err
	}
	for _, p := range gone {
		if slices.Contains(merged, p) {
			continue
		}
		size := u.pending[p]
		u.count(func(s *Stats) { s.DroppedFiles++; s.DroppedBytes += uint64(size) })
		u.options.Log.Warn("the history removed a file before it was uploaded", "file", p, "bytes", size)
	}
	maps.DeleteFunc(u.damaged, func(p string, size int64) bool { return now[p] != size })
	for p := range u.damaged {
		delete(now, p)
	}
	u.pending = now
	u.leaveOutThere()
	return nil
}

// leaveOutThere takes from the pending files those that are in the bucket.
func (u *Uploader) leaveOutThere() {
	for p, size := range u.there {
		if u.pending[p] == size {
			delete(u.pending, p)
		}
	}
	u.countPending()
}

func (u *Uploader) countPending() {
	u.count(func(s *Stats) {
		s.PendingFiles, s.PendingBytes = uint64(len(u.pending)), 0
		for _, size := range u.pending {
			s.PendingBytes += uint64(size)
		}
	})
}

// list learns what is in the bucket of this host.
func (u *Uploader) list(ctx context.Context) error {
	there := make(map[string]int64)
	for _, dir := range store.CompactedDirs(u.options.Host) {
		for object := range u.client.ListObjectsIter(ctx, u.bucket, minio.ListObjectsOptions{Prefix: u.prefix + dir + "/", Recursive: true}) {
			if object.Err != nil {
				return fmt.Errorf("list %s in bucket %s: %w", u.prefix+dir, u.bucket, object.Err)
			}
			there[strings.TrimPrefix(object.Key, u.prefix)] = object.Size
		}
	}
	before := len(u.pending)
	u.there = there
	u.leaveOutThere()
	u.count(func(s *Stats) { s.Present = uint64(before - len(u.pending)) })
	return nil
}

// put sends one file. A writer that removes it meanwhile does not take it away: it is open.
func (u *Uploader) put(ctx context.Context, f store.File) error {
	file, err := os.Open(filepath.Join(u.options.Dir, filepath.FromSlash(f.Path)))
	if err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	defer file.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(stalled, func() { cancel(fmt.Errorf("nothing moved for %s", stalled)) })
	defer watchdog.Stop()
	body := &paced{ctx: ctx, file: file, pace: &u.pace, alive: func() { watchdog.Reset(stalled) }}
	_, err = u.client.PutObject(ctx, u.bucket, u.prefix+f.Path, body, f.Bytes, minio.PutObjectOptions{
		ContentType: "application/vnd.apache.parquet", DisableMultipart: true,
	})
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("put %s into bucket %s: %w", u.prefix+f.Path, u.bucket, err)
	}
	u.there[f.Path] = f.Bytes
	delete(u.pending, f.Path)
	u.count(func(s *Stats) { s.Files++; s.Bytes += uint64(f.Bytes) })
	u.countPending()
	return nil
}

// removeMerged removes from the bucket the hours that were compacted into a day, once it is there with all its files: what was not sent, because it is
// damaged, stands for nothing. Between the two a reader of the bucket counts them twice. Nothing else is ever removed from the bucket.
func (u *Uploader) removeMerged(ctx context.Context, files []store.File) error {
	files = slices.DeleteFunc(slices.Clone(files), func(f store.File) bool { return u.there[f.Path] != f.Bytes })
	merged, err := store.Merged(u.options.Dir, files, slices.Sorted(maps.Keys(u.there)))
	if err != nil {
		return err
	}
	for _, p := range merged {
		if err := u.client.RemoveObject(ctx, u.bucket, u.prefix+p, minio.RemoveObjectOptions{}); err != nil {
			return fmt.Errorf("remove %s, an hour of which the day is there, from bucket %s: %w", u.prefix+p, u.bucket, err)
		}
		delete(u.there, p)
		u.count(func(s *Stats) { s.Removed++ })
	}
	return nil
}
