package objfile

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// The header of a compressed section (Elf64_Chdr, 24 bytes):
//
//	0  ch_type u32, 4 reserved, 8 ch_size u64, 16 ch_addralign u64
const (
	compressionHeaderSize = 24
	compressZlib          = 1
	compressZstd          = 2
)

// InflatedData is [File.SectionData] that inflates a compressed section: max bounds what is read, and what comes of it.
//
// Errors wrap those of SectionData but for [ErrCompressed], and [ErrUnsupported] for an unknown compression.
func (f *File) InflatedData(s Section, max int) ([]byte, error) {
	if s.Flags&SHF_COMPRESSED == 0 {
		return f.SectionData(s, max)
	}
	raw := s
	raw.Flags &^= SHF_COMPRESSED
	data, err := f.SectionData(raw, max)
	if err != nil {
		return nil, err
	}
	if len(data) < compressionHeaderSize {
		return nil, fmt.Errorf("section %q: %w", s.Name, errorAt(ErrCorrupt, s.Off, "%d bytes, compressed", len(data)))
	}
	size := le.Uint64(data[8:])
	if size > uint64(max) {
		return nil, fmt.Errorf("section %q: %w", s.Name, errorAt(ErrTooLarge, s.Off, "%d bytes inflated, limit %d", size, max))
	}
	r, err := inflater(le.Uint32(data), data[compressionHeaderSize:], uint64(max))
	if err != nil {
		return nil, fmt.Errorf("section %q: %w", s.Name, err)
	}
	defer r.Close()
	inflated := make([]byte, size)
	if n, err := io.ReadFull(r, inflated); err != nil {
		return nil, fmt.Errorf("section %q: %w", s.Name, errorAt(ErrCorrupt, s.Off, "inflates to %d of %d bytes: %v", n, size, err))
	}
	return inflated, nil
}

func inflater(kind uint32, data []byte, max uint64) (io.ReadCloser, error) {
	switch kind {
	case compressZlib:
		r, err := zlib.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, errors.Join(ErrCorrupt, err)
		}
		return r, nil
	case compressZstd:
		d, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(max), zstd.WithDecoderMaxWindow(max))
		if err != nil {
			return nil, errors.Join(ErrCorrupt, err)
		}
		return d.IOReadCloser(), nil
	}
	return nil, fmt.Errorf("%w: compression %d", ErrUnsupported, kind)
}
