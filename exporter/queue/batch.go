package queue

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// A batch as a file, by the name of its number (%016x.batch):
//
//	offset  bytes
//	0       4     "PLQ1"
//	4       4     n, the length of the header, little endian
//	8       n     the header: Header as JSON, with the sum of all samples up to this batch
//	8+n           the body
//	end-4   4     CRC-32C of all before it, little endian
const (
	magic       = "PLQ1"
	fixedBytes  = len(magic) + 4
	sumBytes    = 4
	maxHeader   = 4 << 10
	batchSuffix = ".batch"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header says what is in a batch without a look into its body.
type Header struct {
	// Samples in the body. What is not made of samples counts none.
	Samples uint64 `json:"samples"`
	// Items are what the receiver counts, such as profiles or data points.
	Items uint64 `json:"items"`
	// Encoding of the body: "gzip", "zstd", or "" where it is not compressed.
	Encoding string `json:"encoding,omitempty"`
	// Start and End of the time that the body is of.
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
}

// stored is a header with what the queue adds to it.
type stored struct {
	Header
	// Collected are the samples and batches that were ever put into this queue, with this one: the count outlives a kill that comes between a
	// batch and the account.
	Collected counts `json:"collected"`
	// Put is when, for the age of what waits.
	Put time.Time `json:"put"`
}

type counts struct {
	Samples uint64 `json:"samples"`
	Batches uint64 `json:"batches"`
}

var errDamaged = errors.New("damaged")

func encodeBatch(s *stored, body []byte) ([]byte, error) {
	header, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	if len(header) > maxHeader {
		return nil, fmt.Errorf("header of %d bytes: %d at most", len(header), maxHeader)
	}
	data := make([]byte, 0, fixedBytes+len(header)+len(body)+sumBytes)
	data = append(data, magic...)
	data = binary.LittleEndian.AppendUint32(data, uint32(len(header)))
	data = append(data, header...)
	data = append(data, body...)
	return binary.LittleEndian.AppendUint32(data, crc32.Checksum(data, castagnoli)), nil
}

// decodeHeader reads the header at the beginning of data, which may be cut after it.
func decodeHeader(data []byte) (*stored, int, error) {
	if len(data) < fixedBytes || string(data[:len(magic)]) != magic {
		return nil, 0, errDamaged
	}
	n := binary.LittleEndian.Uint32(data[len(magic):])
	if n > maxHeader || int(n) > len(data)-fixedBytes {
		return nil, 0, errDamaged
	}
	end := fixedBytes + int(n)
	s := &stored{}
	if err := json.Unmarshal(data[fixedBytes:end], s); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return s, end, nil
}

// decodeBatch takes a whole file apart. The body is part of data.
func decodeBatch(data []byte) (*stored, []byte, error) {
	s, begin, err := decodeHeader(data)
	if err != nil {
		return nil, nil, err
	}
	end := len(data) - sumBytes
	if end < begin || binary.LittleEndian.Uint32(data[end:]) != crc32.Checksum(data[:end], castagnoli) {
		return s, nil, errDamaged
	}
	return s, data[begin:end], nil
}
