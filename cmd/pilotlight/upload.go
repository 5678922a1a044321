package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/pflag"

	"github.com/pilotlight/pilotlight/exporter/upload"
)

// defaultUploadRate leaves the network to the host's own work: a day of 64 busy cores takes half a minute.
const defaultUploadRate = 4 << 20

type uploadFlags struct {
	url, endpoint, region, credentials string
	rate                               byteSize
}

func (f *uploadFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.url, "upload-url", "", "copy the compacted history to this `URL` of S3-compatible storage, s3://BUCKET/PREFIX; keys come from AWS_ACCESS_KEY_ID and "+
		"AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials")
	flags.StringVar(&f.endpoint, "upload-endpoint", "", "`URL` of that storage where it is not Amazon's, such as https://minio.example:9000")
	flags.StringVar(&f.region, "upload-region", "", "`REGION` of the bucket; by default the storage is asked")
	flags.StringVar(&f.credentials, "upload-credentials", "", "read the keys from this `FILE`, which looks like ~/.aws/credentials")
	f.rate = defaultUploadRate
	flags.Var(&f.rate, "upload-rate", "upload this `SIZE` a second at most, such as 500kB, but not less than 10kB; 0: no limit")
}

func (f *uploadFlags) options(dir, host string, log *slog.Logger) upload.Options {
	return upload.Options{
		URL: f.url, Endpoint: f.endpoint, Region: f.region, CredentialsFile: f.credentials, BytesPerSecond: int64(f.rate), Dir: dir, Host: host, Log: log,
	}
}

// check says what is wrong with the flags, before anything is opened.
func (f *uploadFlags) check(history *historyFlags) error {
	if f.url != "" && history.off {
		return errors.New("--upload-url with --no-history: there is nothing to upload")
	}
	if f.url == "" {
		for name, value := range map[string]string{"endpoint": f.endpoint, "region": f.region, "credentials": f.credentials} {
			if value != "" {
				return fmt.Errorf("--upload-%s without --upload-url: nothing is uploaded", name)
			}
		}
		return nil
	}
	o := f.options("", "", nil)
	return o.Check()
}
