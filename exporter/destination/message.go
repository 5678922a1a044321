package destination

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Message is an encoded message on its way to any number of destinations: it is compressed once for all that want it so. Safe for
// concurrent use.
type Message struct {
	plain []byte

	mu         sync.Mutex
	compressed map[string][]byte
}

// NewMessage wraps a message. Its bytes must not be changed afterwards.
func NewMessage(plain []byte) *Message { return &Message{plain: plain} }

func (m *Message) body(compression string) ([]byte, error) {
	if compression == "" {
		return m.plain, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if body, ok := m.compressed[compression]; ok {
		return body, nil
	}
	body, err := compress(compression, m.plain)
	if err != nil {
		return nil, err
	}
	if m.compressed == nil {
		m.compressed = make(map[string][]byte)
	}
	m.compressed[compression] = body
	return body, nil
}

func compress(compression string, plain []byte) ([]byte, error) {
	switch compression {
	case Gzip:
		var buffer bytes.Buffer
		w := gzip.NewWriter(&buffer)
		if _, err := w.Write(plain); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		return buffer.Bytes(), nil
	case Zstd:
		// One goroutine, and a window no larger than a message: the defaults take memory for each core.
		w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return nil, err
		}
		return w.EncodeAll(plain, nil), w.Close()
	}
	return nil, fmt.Errorf("compression %q is not known", compression)
}
