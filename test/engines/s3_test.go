package engines

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/pilotlight/pilotlight/exporter/store"
	"github.com/pilotlight/pilotlight/exporter/upload"
)

const (
	accessKey = "tester"
	secretKey = "a-secret-that-no-log-may-hold"
	bucket    = "fleet"
	s3URL     = "s3://" + bucket + "/prod/eu"
	s3Prefix  = "prod/eu/"
)

// buildServer builds versitygw, an S3 server that keeps objects as files.
var buildServer = sync.OnceValues(func() (string, error) {
	path, err := filepath.Abs("../../build/versitygw")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", path, "github.com/versity/versitygw/cmd/versitygw").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build versitygw: %w\n%s", err, out)
	}
	return path, nil
})

// server is a versitygw that can be killed and started again on the same address and objects.
type server struct {
	t      *testing.T
	binary string
	addr   string
	dir    string
	cmd    *exec.Cmd
	output bytes.Buffer
	client *minio.Client
}

func startServer(t *testing.T) *server {
	t.Helper()
	binary, err := buildServer()
	if err != nil {
		t.Fatal(err)
	}
	// A free port that stays ours between kill and start.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, binary: binary, addr: l.Addr().String(), dir: t.TempDir()}
	l.Close()
	s.client, err = minio.New(s.addr, &minio.Options{Creds: credentials.NewStaticV4(accessKey, secretKey, ""), MaxRetries: 1})
	if err != nil {
		t.Fatal(err)
	}
	s.start()
	t.Cleanup(s.kill)
	if err := s.client.MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) endpoint() string { return "http://" + s.addr }

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(s.binary, "--access", accessKey, "--secret", secretKey, "--port", s.addr, "--quiet", "posix", s.dir)
	s.cmd.Stdout, s.cmd.Stderr = &s.output, &s.output
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "the S3 server answers", func() bool {
		_, err := s.client.ListBuckets(s.t.Context())
		return err == nil
	})
}

func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// objects are the contents of the bucket by key, without the prefix.
func (s *server) objects() map[string][]byte {
	s.t.Helper()
	objects := make(map[string][]byte)
	for o := range s.client.ListObjectsIter(s.t.Context(), bucket, minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			s.t.Fatal(o.Err)
		}
		r, err := s.client.GetObject(s.t.Context(), bucket, o.Key, minio.GetObjectOptions{})
		if err != nil {
			s.t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			s.t.Fatal(err)
		}
		r.Close()
		key, ok := strings.CutPrefix(o.Key, s3Prefix)
		if !ok {
			s.t.Errorf("object %s is outside of the prefix", o.Key)
		}
		objects[key] = content
	}
	return objects
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// dataDir is a directory laid out as the history's. The uploader looks at names and checksums alone.
type dataDir struct {
	t     *testing.T
	path  string
	files map[string][]byte
}

func newDataDir(t *testing.T) *dataDir { return &dataDir{t, t.TempDir(), make(map[string][]byte)} }

func (d *dataDir) write(path string, bytes int) {
	d.t.Helper()
	content := make([]byte, bytes)
	rand.Read(content)
	content = checked(content)
	full := filepath.Join(d.path, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o750); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(full, content, 0o640); err != nil {
		d.t.Fatal(err)
	}
	d.files[path] = content
}

// checked puts the checksums behind content, and an empty footer, as exporter/store/checked.go draws them.
func checked(content []byte) []byte {
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	footer := []byte("\x00\x00\x00\x00PAR1")
	var sums []byte
	for block := range slices.Chunk(content, 16<<10) {
		sums = binary.LittleEndian.AppendUint32(sums, crc32.Checksum(block, castagnoli))
	}
	sums = binary.LittleEndian.AppendUint32(sums, crc32.Checksum(footer, castagnoli))
	sums = binary.LittleEndian.AppendUint64(sums, uint64(len(content)))
	sums = binary.LittleEndian.AppendUint32(sums, crc32.Checksum(sums, castagnoli))
	return slices.Concat(content, sums, []byte("PLSUM001"), footer)
}

// damage flips a bit of a file.
func (d *dataDir) damage(path string, at int) {
	d.t.Helper()
	content := bytes.Clone(d.files[path])
	content[at] ^= 1
	if err := os.WriteFile(filepath.Join(d.path, path), content, 0o640); err != nil {
		d.t.Fatal(err)
	}
	delete(d.files, path)
}

func (d *dataDir) remove(path string) {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.path, path)); err != nil {
		d.t.Fatal(err)
	}
	delete(d.files, path)
}

// hour writes what compaction makes of an hour.
func (d *dataDir) hour(hour, bytes int) {
	d.t.Helper()
	for _, dir := range []string{"stacks", "samples/resolution=1h"} {
		d.write(fmt.Sprintf("v1/%s/host=web1/date=2026-11-24/20261124T%02d.parquet", dir, hour), bytes)
	}
}

func (d *dataDir) bytes() (sum uint64) {
	for _, content := range d.files {
		sum += uint64(len(content))
	}
	return sum
}

// same says whether the bucket holds exactly these files.
func (d *dataDir) same(objects map[string][]byte) bool {
	if len(objects) != len(d.files) {
		return false
	}
	for path, content := range d.files {
		if !bytes.Equal(objects[path], content) {
			return false
		}
	}
	return true
}

// logText is what an uploader logs.
type logText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func startUpload(t *testing.T, s *server, d *dataDir, change func(*upload.Options)) (*upload.Uploader, *logText) {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", accessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", secretKey)
	log := new(logText)
	o := upload.Options{
		URL: s3URL, Endpoint: s.endpoint(), Dir: d.path, Host: "web1",
		Every: 50 * time.Millisecond, Log: slog.New(slog.NewTextHandler(log, nil)),
	}
	if change != nil {
		change(&o)
	}
	u, err := upload.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		u.Close()
		if strings.Contains(log.String(), secretKey) {
			t.Errorf("the secret is in the log: %s", log)
		}
	})
	return u, log
}

// What is finished is sent, byte for byte; what is not finished, not of this host or not compacted stays.
func TestUploadSendsWhatIsFinished(t *testing.T) {
	s, d := startServer(t), newDataDir(t)
	d.hour(15, 200_000)
	d.hour(16, 1)
	other := newDataDir(t)
	other.path = d.path
	for _, path := range []string{
		"v1/samples/resolution=10s/host=web1/date=2026-11-24/20261124T170510Z.parquet",
		"v1/samples/resolution=1h/host=web1/date=2026-11-24/20261124T17.parquet.tmp",
		"v1/samples/resolution=1h/host=web2/date=2026-11-24/20261124T15.parquet",
		"v1/samples/resolution=1m/host=web1/date=2026-11-24/20261124T14.parquet", // as an older version made it: it becomes an hour
		"v1/samples/resolution=1h/host=web1/date=2026-11-24/20261124T14.parquet", // its twin of before
		"v1/stacks/host=web1/date=2026-11-24/20261124T170510Z.parquet",           // of samples that are not compacted
		"lock",
	} {
		other.write(path, 10)
	}
	u, _ := startUpload(t, s, d, nil)
	eventually(t, "all is sent", func() bool { return u.Stats().Files == uint64(len(d.files)) })
	if !d.same(s.objects()) {
		t.Errorf("the bucket does not hold the %d files as they are", len(d.files))
	}
	d.hour(17, 5000)
	eventually(t, "the next hour is sent", func() bool { return u.Stats().Files == uint64(len(d.files)) })
	time.Sleep(200 * time.Millisecond) // some rounds more
	stats := u.Stats()
	if stats.Files != uint64(len(d.files)) || stats.PendingFiles != 0 || stats.Failures != 0 || stats.DroppedFiles != 0 || stats.Bytes != d.bytes() {
		t.Errorf("%+v", stats)
	}
}

// After a restart only what is not there is sent, or is there with another size.
func TestUploadResumes(t *testing.T) {
	s, d := startServer(t), newDataDir(t)
	d.hour(15, 1000)
	d.hour(16, 1000)
	u, _ := startUpload(t, s, d, nil)
	eventually(t, "all is sent", func() bool { return u.Stats().Files == 4 })
	u.Close()
	d.hour(17, 1000)
	const rewritten = "v1/stacks/host=web1/date=2026-11-24/20261124T15.parquet"
	d.write(rewritten, 999)
	u, _ = startUpload(t, s, d, nil)
	eventually(t, "the rest is sent", func() bool { return d.same(s.objects()) })
	if stats := u.Stats(); stats.Present != 3 || stats.Files != 3 {
		t.Errorf("%+v: want 3 present and 3 sent", stats)
	}
}

// The day takes the place of those hours that it holds, in the bucket too. Another hour of that day stays: it is of a time before this
// directory. So does everything when the history on the host is removed.
func TestUploadReplacesHoursByTheDay(t *testing.T) {
	s, d := startServer(t), newDataDir(t)
	name := func(dir, hour string) string {
		return "v1/" + dir + "/host=web1/date=" + day(2).Format(time.DateOnly) + "/" + day(2).Format("20060102") + hour + ".parquet"
	}
	dirs := []string{"stacks", "samples/resolution=1h"}
	for _, dir := range dirs {
		for _, hour := range []string{"T03", "T15", "T16"} {
			d.write(name(dir, hour), 1000)
		}
	}
	u, _ := startUpload(t, s, d, nil)
	eventually(t, "the hours are sent", func() bool { return u.Stats().Files == 6 })
	u.Close()
	before := s.objects()
	for path := range before {
		d.remove(path)
	}

	past, err := store.Open(store.Options{Dir: d.path, Host: "web1", MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	program := []*program{newProgram(1, "p", "f", "g", "h")}
	for _, hour := range []int{15, 16} {
		for i := range 3 {
			past.Export(interval(mathrand.New(mathrand.NewPCG(1, 2)), day(2).Add(time.Duration(hour)*time.Hour+time.Duration(i)*10*time.Second), program))
		}
	}
	eventually(t, "the day is one file", func() bool {
		files, err := store.Compacted(d.path, "web1")
		return err == nil && len(files) == 2 && !strings.Contains(files[1].Path, "T")
	})
	if err := past.Close(); err != nil {
		t.Fatal(err)
	}
	// As long as the day is damaged it takes no hour's place.
	damaged := filepath.Join(d.path, name("samples/resolution=1h", ""))
	flip := func() {
		t.Helper()
		content, err := os.ReadFile(damaged)
		if err != nil {
			t.Fatal(err)
		}
		content[100] ^= 1
		if err := os.WriteFile(damaged, content, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	flip()
	u, _ = startUpload(t, s, d, nil)
	eventually(t, "all but the day is sent", func() bool { return u.Stats().Files == 1 && u.Stats().Damaged == 1 })
	time.Sleep(200 * time.Millisecond) // some rounds more
	if stats := u.Stats(); stats.Removed != 0 || stats.Damaged != 1 || s.objects()[name("samples/resolution=1h", "T15")] == nil {
		t.Errorf("with a damaged day: %+v", stats)
	}
	u.Close()
	flip()
	u, _ = startUpload(t, s, d, nil)
	eventually(t, "the hours are removed", func() bool { return u.Stats().Files == 1 && u.Stats().Removed == 2 })
	want := listed(t, d.path, "")
	for _, dir := range dirs {
		want[name(dir, "T03")] = before[name(dir, "T03")]
	}
	check := func(when string) {
		t.Helper()
		objects := s.objects()
		for path, content := range want {
			if !bytes.Equal(objects[path], content) {
				t.Errorf("%s the bucket lacks %s", when, path)
			}
		}
		for path := range objects {
			// A stack that is there twice counts once.
			if _, ok := want[path]; !ok && !strings.HasPrefix(path, "v1/stacks/") {
				t.Errorf("%s the bucket still holds %s", when, path)
			}
		}
	}
	check("after the day came")
	for path := range listed(t, d.path, "") {
		if err := os.Remove(filepath.Join(d.path, path)); err != nil {
			t.Fatal(err)
		}
	}
	d.hour(18, 10)
	eventually(t, "another hour is sent", func() bool { return u.Stats().Files == 3 })
	for path, content := range d.files {
		want[path] = content
	}
	check("after the host removed it")
	if stats := u.Stats(); stats.DroppedFiles != 0 {
		t.Errorf("%+v", stats)
	}
}

// An hour that was compacted into the day before it could be sent is not missed: the day is sent. One that retention took is.
func TestUploadTellsCompactionFromRetention(t *testing.T) {
	s, d := startServer(t), newDataDir(t)
	s.kill()
	past, err := store.Open(store.Options{Dir: d.path, Host: "web1", MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer past.Close()
	export := func(hour int) {
		past.Export(interval(mathrand.New(mathrand.NewPCG(1, 2)), day(2).Add(time.Duration(hour)*time.Hour), []*program{newProgram(1, "p", "f")}))
	}
	compacted := func(n int) func() bool {
		return func() bool {
			files, err := store.Compacted(d.path, "web1")
			intervals, _ := filepath.Glob(filepath.Join(d.path, "v1/samples/resolution=10s/*/*/*"))
			return err == nil && len(files) == n && len(intervals) == 0
		}
	}
	export(3) // alone it stays an hour
	eventually(t, "the hour is compacted", compacted(2))
	u, log := startUpload(t, s, d, nil)
	eventually(t, "it is pending", func() bool { return u.Stats().PendingFiles == 2 && u.Stats().Failures > 0 })
	export(4)
	eventually(t, "the day is one", func() bool {
		files, err := store.Compacted(d.path, "web1")
		return err == nil && len(files) == 2 && !strings.Contains(files[1].Path, "T")
	})
	s.start()
	eventually(t, "the day is sent", func() bool { return u.Stats().Files == 2 && u.Stats().PendingFiles == 0 })
	if stats := u.Stats(); stats.DroppedFiles > 0 {
		t.Errorf("%+v\n%s", stats, log)
	}
}

// The server is killed again and again in mid-upload, and the uploader too: in the end everything is there as it was.
func TestUploadOutlivesKills(t *testing.T) {
	s, d := startServer(t), newDataDir(t)
	for hour := range 8 {
		d.hour(hour, 450_000)
	}
	slow := func(o *upload.Options) { o.BytesPerSecond = 4 << 20 }
	u, log := startUpload(t, s, d, slow)
	kills := 0
	for ; kills < 5; kills++ {
		sent := u.Stats().Files
		eventually(t, "a file more is sent", func() bool { return u.Stats().Files > sent })
		time.Sleep(30 * time.Millisecond) // in the next one
		if kills%2 == 0 {
			s.kill()
			failures := u.Stats().Failures
			eventually(t, "the failure is counted", func() bool { return u.Stats().Failures > failures })
			s.start()
		} else {
			u.Close()
			u, log = startUpload(t, s, d, slow)
		}
	}
	eventually(t, "nothing is pending", func() bool { return u.Stats().Files > 0 && u.Stats().PendingFiles == 0 })
	if !d.same(s.objects()) {
		t.Error("the bucket does not hold the files as they are")
	}
	t.Logf("%d kills; the last uploader: %+v", kills, u.Stats())
	if text := log.String(); !strings.Contains(text, "will be tried again") || !strings.Contains(text, "goes on") {
		t.Errorf("the log does not tell of the failure and its end: %s", text)
	}
}

// What retention takes before it was sent is counted.
func TestUploadCountsWhatItMissed(t *testing.T) {
	s, d := startServer(t), newDataDir(t)
	s.kill()
	d.hour(15, 700)
	d.hour(16, 300)
	d.write("v1/samples/resolution=1h/host=web1/date=2026-11-23/20261123.parquet", 40)
	dropped := uint64(len(d.files["v1/samples/resolution=1h/host=web1/date=2026-11-23/20261123.parquet"]))
	u, log := startUpload(t, s, d, nil)
	eventually(t, "all is pending", func() bool { return u.Stats().PendingFiles == 5 && u.Stats().Failures > 0 })
	const gone = "v1/samples/resolution=1h/host=web1/date=2026-11-23/20261123.parquet"
	d.remove(gone)
	s.start()
	eventually(t, "the rest is sent", func() bool { return u.Stats().Files == 4 })
	if stats := u.Stats(); stats.DroppedFiles != 1 || stats.DroppedBytes != dropped || stats.PendingFiles != 0 {
		t.Errorf("%+v: want one file of 40 bytes dropped", stats)
	}
	if !strings.Contains(log.String(), gone) {
		t.Errorf("the log does not name %s: %s", gone, log)
	}
}

// A damaged file is not sent, and said once: in the bucket nobody would see that it is. The others are sent, and it when it is whole.
func TestUploadLeavesOutDamage(t *testing.T) {
	s, d := startServer(t), newDataDir(t)
	d.hour(15, 40_000)
	const bad = "v1/samples/resolution=1h/host=web1/date=2026-11-24/20261124T15.parquet"
	whole := d.files[bad]
	d.damage(bad, 20_000)
	u, log := startUpload(t, s, d, nil)
	eventually(t, "the others are sent", func() bool { return u.Stats().Files == 1 && u.Stats().Damaged == 1 && u.Stats().PendingFiles == 0 })
	time.Sleep(200 * time.Millisecond) // some rounds more
	if stats := u.Stats(); stats.Damaged != 1 || stats.Failures != 0 || stats.DroppedFiles != 0 || !d.same(s.objects()) {
		t.Errorf("%+v", stats)
	}
	if text := log.String(); strings.Count(text, "damaged at offset 16384") != 1 {
		t.Errorf("the log: %s", text)
	}
	u.Close()
	d.files[bad] = whole
	if err := os.WriteFile(filepath.Join(d.path, bad), whole, 0o640); err != nil {
		t.Fatal(err)
	}
	u, _ = startUpload(t, s, d, nil)
	eventually(t, "all is sent", func() bool { return d.same(s.objects()) })
	if stats := u.Stats(); stats.Present != 1 || stats.Files != 1 {
		t.Errorf("%+v", stats)
	}
}

// The rate is kept, and Close does not wait for what is slow.
func TestUploadIsPaced(t *testing.T) {
	s, d := startServer(t), newDataDir(t)
	d.hour(15, 150_000)
	began := time.Now()
	u, _ := startUpload(t, s, d, func(o *upload.Options) { o.BytesPerSecond = 200_000 })
	eventually(t, "all is sent", func() bool { return u.Stats().Files == 2 })
	if took := time.Since(began); took < 1300*time.Millisecond {
		t.Errorf("300,000 bytes at 200,000 a second took %s", took)
	}
	d.hour(16, 100_000)
	u.Close()
	u, _ = startUpload(t, s, d, func(o *upload.Options) { o.BytesPerSecond = 10_000 })
	eventually(t, "the next hour is under way", func() bool { return u.Stats().PendingFiles == 2 })
	began = time.Now()
	u.Close()
	if took := time.Since(began); took > time.Second {
		t.Errorf("Close took %s", took)
	}
	if n := len(s.objects()); n != 2 {
		t.Errorf("%d objects: a part of a file is there", n)
	}
}

// A key that is refused is said and tried again; with the file put right, the upload goes on.
func TestUploadReadsCredentialsAgain(t *testing.T) {
	s, d := startServer(t), newDataDir(t)
	d.hour(15, 100)
	file := filepath.Join(t.TempDir(), "credentials")
	write := func(secret string) {
		text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", accessKey, secret)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("wrong-" + secretKey)
	u, log := startUpload(t, s, d, func(o *upload.Options) { o.CredentialsFile = file })
	eventually(t, "the refusal is counted", func() bool { return u.Stats().Failures > 0 })
	write(secretKey)
	eventually(t, "all is sent", func() bool { return u.Stats().Files == 2 })
	if !strings.Contains(log.String(), bucket) {
		t.Errorf("the log does not say what failed: %s", log)
	}
}

func TestUploadOptions(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("HOME", t.TempDir())
	_, err := upload.Start(upload.Options{URL: s3URL, Dir: t.TempDir(), Host: "web1", Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "AWS_ACCESS_KEY_ID") {
		t.Errorf("without credentials: %v", err)
	}
}
