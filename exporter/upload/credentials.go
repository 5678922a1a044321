package upload

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// rereadCredentials is how old what was read of the file gets: whoever rotates keys writes the file anew.
const rereadCredentials = time.Minute

// keys come from the environment or else from a file in the format of the AWS tools:
//
//	[default]
//	aws_access_key_id = AKIA...
//	aws_secret_access_key = ...
//	aws_session_token = ...
//
// They never stand in an error. minio-go's reader of such files puts the line that it does not understand into
// its error, and starts programs that the file names; this one does neither.
type keys struct {
	file string // "": AWS_SHARED_CREDENTIALS_FILE, or ~/.aws/credentials
	read time.Time
}

var errNoCredentials = errors.New("no credentials for the upload: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file by --upload-credentials")

// Retrieve is called again whenever IsExpired.
func (k *keys) Retrieve() (credentials.Value, error) {
	k.read = time.Now()
	if v := (credentials.Value{
		AccessKeyID: os.Getenv("AWS_ACCESS_KEY_ID"), SecretAccessKey: os.Getenv("AWS_SECRET_ACCESS_KEY"),
		SessionToken: os.Getenv("AWS_SESSION_TOKEN"), SignerType: credentials.SignatureV4,
	}); k.file == "" && v.AccessKeyID != "" && v.SecretAccessKey != "" {
		return v, nil
	}
	path := k.file
	if path == "" {
		path = os.Getenv("AWS_SHARED_CREDENTIALS_FILE")
	}
	if path == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return credentials.Value{}, errNoCredentials
		}
		path = filepath.Join(home, ".aws", "credentials")
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) && k.file == "" {
		return credentials.Value{}, errNoCredentials
	}
	if err != nil {
		return credentials.Value{}, fmt.Errorf("credentials for the upload: %w", err)
	}
	defer f.Close()
	section := os.Getenv("AWS_PROFILE")
	if section == "" {
		section = "default"
	}
	v, err := parseKeys(f, section)
	if err != nil {
		return v, fmt.Errorf("credentials for the upload: %s: %w", path, err)
	}
	return v, nil
}

// RetrieveWithCredContext is Retrieve: nothing here needs the client's connection.
func (k *keys) RetrieveWithCredContext(*credentials.CredContext) (credentials.Value, error) {
	return k.Retrieve()
}

// IsExpired tells when to read again.
func (k *keys) IsExpired() bool { return time.Since(k.read) > rereadCredentials }

func parseKeys(r io.Reader, section string) (credentials.Value, error) {
	v := credentials.Value{SignerType: credentials.SignatureV4}
	in := false
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if name, ok := strings.CutPrefix(line, "["); ok {
			in = strings.TrimSpace(strings.TrimSuffix(name, "]")) == section
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !in || !ok || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "aws_access_key_id":
			v.AccessKeyID = value
		case "aws_secret_access_key":
			v.SecretAccessKey = value
		case "aws_session_token":
			v.SessionToken = value
		}
	}
	if err := lines.Err(); err != nil {
		return credentials.Value{}, err
	}
	if v.AccessKeyID == "" || v.SecretAccessKey == "" {
		return credentials.Value{}, fmt.Errorf("no aws_access_key_id and aws_secret_access_key in the section [%s]; AWS_PROFILE chooses another", section)
	}
	return v, nil
}
