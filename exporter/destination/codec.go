package destination

import (
	"bytes"
	"fmt"
	"io"

	"connectrpc.com/connect"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"
)

// message is one that is encoded and compressed already: the library only frames it.
type message struct{ body []byte }

// rawCodec stands for the library's own, which it also reads the details of errors with.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) ([]byte, error) {
	switch m := v.(type) {
	case *message:
		return m.body, nil
	case proto.Message:
		return proto.Marshal(m)
	}
	return nil, fmt.Errorf("a message of type %T", v)
}

func (rawCodec) Unmarshal(b []byte, v any) error {
	switch m := v.(type) {
	case *message:
		m.body = bytes.Clone(b)
		return nil
	case proto.Message:
		return proto.Unmarshal(b, m)
	}
	return fmt.Errorf("a message of type %T", v)
}

// passing is a compressor of what is compressed already.
type passing struct{ io.Writer }

func newPassing() connect.Compressor { return &passing{} }

func (p *passing) Close() error      { return nil }
func (p *passing) Reset(w io.Writer) { p.Writer = w }

func newDecompressor(name string) func() connect.Decompressor {
	if name == Gzip {
		return func() connect.Decompressor { return &gzip.Reader{} }
	}
	return func() connect.Decompressor { return &zstdReader{} }
}

// zstdReader gives back what its decoder holds: the pool of decompressors forgets them without a word.
type zstdReader struct{ decoder *zstd.Decoder }

func (r *zstdReader) Read(p []byte) (int, error) {
	if r.decoder == nil {
		return 0, io.EOF
	}
	return r.decoder.Read(p)
}

func (r *zstdReader) Close() error {
	if r.decoder != nil {
		r.decoder.Close()
		r.decoder = nil
	}
	return nil
}

func (r *zstdReader) Reset(from io.Reader) (err error) {
	r.Close()
	r.decoder, err = zstd.NewReader(from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxAnswer))
	return err
}

// decompress undoes compress, of what this program has written.
func decompress(compression string, body []byte) ([]byte, error) {
	switch compression {
	case "":
		return body, nil
	case Gzip:
		r, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	case Zstd:
		r, err := zstd.NewReader(bytes.NewReader(body), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(r)
	}
	return nil, fmt.Errorf("compression %q is not known", compression)
}
