package store

import (
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/format"
)

// compressionWindow is a page's size: the encoder of the library keeps twice 8 MB.
const compressionWindow = 256 << 10

// codec is zstd for writers, with little memory. Safe for concurrent use.
type codec struct {
	level   zstd.EncoderLevel
	mu      sync.Mutex
	encoder *zstd.Encoder
	decoder *zstd.Decoder
}

func (c *codec) String() string { return "ZSTD" }

func (c *codec) CompressionCodec() format.CompressionCodec { return format.Zstd }

func (c *codec) Encode(dst, src []byte) (_ []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.encoder == nil {
		c.encoder, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(c.level), zstd.WithWindowSize(compressionWindow),
			zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithZeroFrames(true), zstd.WithEncoderCRC(false))
		if err != nil {
			return nil, err
		}
	}
	return c.encoder.EncodeAll(src, dst[:0]), nil
}

func (c *codec) Decode(dst, src []byte) (_ []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.decoder == nil {
		if c.decoder, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true)); err != nil {
			return nil, err
		}
	}
	return c.decoder.DecodeAll(src, dst[:0])
}
