package upload

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestOptions(t *testing.T) {
	for _, test := range []struct{ url, endpoint, bucket, prefix, host string }{
		{"s3://b", "", "b", "", "s3.amazonaws.com"},
		{"s3://b/", "https://minio.example:9000", "b", "", "minio.example:9000"},
		{"s3://b/p/q", "http://127.0.0.1:9000/", "b", "p/q/", "127.0.0.1:9000"},
		{"s3://b//p/../q/", "", "b", "q/", "s3.amazonaws.com"},
	} {
		o := Options{URL: test.url, Endpoint: test.endpoint}
		if err := o.Check(); err != nil {
			t.Errorf("%s: %v", test.url, err)
			continue
		}
		bucket, prefix, _ := o.place()
		endpoint, _ := o.endpoint()
		if bucket != test.bucket || prefix != test.prefix || endpoint.Host != test.host {
			t.Errorf("%+v: bucket %q, prefix %q, host %q", test, bucket, prefix, endpoint.Host)
		}
	}
	for _, o := range []Options{
		{}, {URL: "b/p"}, {URL: "http://b/p"}, {URL: "s3://"}, {URL: "s3:///p"}, {URL: "s3://b?region=x"}, {URL: "s3://key:secret@b"},
		{URL: "s3://b", Endpoint: "minio:9000"}, {URL: "s3://b", Endpoint: "ftp://h"}, {URL: "s3://b", Endpoint: "https://h/path"},
		{URL: "s3://b", Endpoint: "https://key:secret@h"}, {URL: "s3://b", BytesPerSecond: -1}, {URL: "s3://b", BytesPerSecond: 9999},
	} {
		err := o.Check()
		if err == nil {
			t.Errorf("%+v is not refused", o)
		} else if strings.Contains(err.Error(), "secret") && strings.Contains(o.Endpoint, "secret") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

const keysFile = `
# comment = x
[other]
aws_access_key_id = other-id
aws_secret_access_key = other-secret

[default]
AWS_Access_Key_Id=id
aws_secret_access_key = sec=ret
aws_session_token =token
region = x
credential_process = /bin/false
`

func TestKeys(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"} {
		t.Setenv(name, "")
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	if _, err := new(keys).Retrieve(); err != errNoCredentials {
		t.Errorf("nothing anywhere: %v", err)
	}
	path := filepath.Join(home, ".aws", "credentials")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(keysFile), 0o600); err != nil {
		t.Fatal(err)
	}
	want := func(k *keys, id, secret, token string) {
		t.Helper()
		v, err := k.Retrieve()
		if err != nil || v.AccessKeyID != id || v.SecretAccessKey != secret || v.SessionToken != token {
			t.Errorf("got %+v, %v, want %s, %s, %q", v, err, id, secret, token)
		}
		if k.IsExpired() {
			t.Error("expired at once")
		}
	}
	want(new(keys), "id", "sec=ret", "token")
	t.Setenv("AWS_PROFILE", "other")
	want(&keys{file: path}, "other-id", "other-secret", "")
	t.Setenv("AWS_PROFILE", "none")
	if _, err := (&keys{file: path}).Retrieve(); err == nil || !strings.Contains(err.Error(), "[none]") || strings.Contains(err.Error(), "secret=") {
		t.Errorf("a section that is not there: %v", err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "env")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "env-secret")
	want(new(keys), "env", "env-secret", "")
	t.Setenv("AWS_PROFILE", "")
	want(&keys{file: path}, "id", "sec=ret", "token") // what is named goes first
	if _, err := (&keys{file: filepath.Join(home, "none")}).Retrieve(); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("a file that is not there: %v", err)
	}
}

// What does not parse is not repeated.
func TestKeysKeepTheirSecret(t *testing.T) {
	_, err := parseKeys(strings.NewReader("[default]\naws_access_key_id = id\naws_secret_access_key secret\nsecret"), "default")
	if err == nil || strings.Contains(strings.ReplaceAll(err.Error(), "aws_secret_access_key", ""), "secret") {
		t.Errorf("%v", err)
	}
}

func TestBackoff(t *testing.T) {
	for failures, longest := range map[int]time.Duration{0: time.Second, 3: 8 * time.Second, 8: 256 * time.Second, 9: lastRetry, 1000: lastRetry} {
		seen := make(map[time.Duration]bool)
		for range 20 {
			d := backoff(failures)
			seen[d] = true
			if d < longest/2 || d > longest {
				t.Errorf("after %d failures: %s, want %s to %s", failures, d, longest/2, longest)
			}
		}
		if len(seen) < 2 {
			t.Errorf("after %d failures always the same", failures)
		}
	}
}
