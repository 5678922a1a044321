package identity

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// A process context is a mapping with one of three names, which the kernel shows where it can: that of a memfd, or that given by prctl, which
// needs a kernel with CONFIG_ANON_VMA_NAME.
var contextNames = []string{"[anon_shmem:OTEL_CTX]", "[anon:OTEL_CTX]", "/memfd:OTEL_CTX"}

const (
	// maxContexts is how many mappings of these names are looked at: there is one in a process.
	maxContexts = 4
	// maxMapsLine is longer than any line but of a path that nobody gives a memfd.
	maxMapsLine = 4 << 10
)

// FindContexts finds the mappings in /proc/PID/maps that may hold a process context. Lines counts all mappings:
//
//	7f3c1a2b4000-7f3c1a2b5000 rw-p 00000000 00:01 12345   /memfd:OTEL_CTX (deleted)
func FindContexts(maps io.Reader) (at []uint64, lines int, err error) {
	r := bufio.NewReaderSize(maps, maxMapsLine)
	for {
		line, err := r.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) {
			line = nil
			_, err = r.ReadSlice('\n')
		}
		if len(line) > 0 && bytes.Contains(line, []byte("OTEL_CTX")) {
			if start, ok := contextAt(line); ok && len(at) < maxContexts {
				at = append(at, start)
			}
		}
		if errors.Is(err, io.EOF) {
			return at, lines, nil
		}
		if err != nil {
			return at, lines, fmt.Errorf("find the process context: %w", err)
		}
		lines++
	}
}

func contextAt(line []byte) (uint64, bool) {
	fields := bytes.Fields(line)
	if len(fields) < 6 || len(fields[1]) == 0 || fields[1][0] != 'r' {
		return 0, false
	}
	named := false
	for _, name := range contextNames {
		named = named || string(fields[5]) == name
	}
	first, last, _ := bytes.Cut(fields[0], []byte{'-'})
	start, err := strconv.ParseUint(string(first), 16, 64)
	end, endErr := strconv.ParseUint(string(last), 16, 64)
	return start, named && err == nil && endErr == nil && start > 0 && end <= maxAddress && end > start && end-start >= headerSize
}

const (
	headerSize     = 32
	contextVersion = 2
	// maxPayload is four times what OpenTelemetry's own profiler takes.
	maxPayload = 64 << 10
	// maxAddress bounds addresses: they are offsets in a file of a process's memory.
	maxAddress = math.MaxInt64
	// maxReads is how often a context is read that changes meanwhile.
	maxReads = 3
)

// Errors of ReadContext.
var (
	// ErrNoContext says that there is none at the address, or none that we understand.
	ErrNoContext = errors.New("no process context")
	// ErrChanging says that it was written again and again while it was read: later it may be had.
	ErrChanging = errors.New("the process context changes")
)

// header of a process context, in the process's byte order:
//
//	char     signature[8];               "OTEL_CTX", written last
//	uint32_t version;                    2
//	uint32_t payload_size;
//	uint64_t monotonic_published_at_ns;  0 while it is written
//	uint64_t payload;                    address of a ProcessContext
type header struct {
	size      uint32
	published uint64
	payload   uint64
}

func readHeader(memory io.ReaderAt, at uint64) (h header, err error) {
	var b [headerSize]byte
	if err := readAt(memory, b[:], at); err != nil {
		return h, fmt.Errorf("%w: %w", ErrNoContext, err)
	}
	if string(b[:8]) != "OTEL_CTX" || binary.NativeEndian.Uint32(b[8:]) != contextVersion {
		return h, ErrNoContext
	}
	return header{binary.NativeEndian.Uint32(b[12:]), binary.NativeEndian.Uint64(b[16:]), binary.NativeEndian.Uint64(b[24:])}, nil
}

func readAt(memory io.ReaderAt, b []byte, at uint64) error {
	if at > maxAddress-uint64(len(b)) {
		return fmt.Errorf("address %#x is out of range", at)
	}
	n, err := memory.ReadAt(b, int64(at))
	if n == len(b) {
		return nil
	}
	return fmt.Errorf("read %d bytes at %#x: %w", len(b), at, err)
}

// ReadContext reads the process context whose header is at an address. Published is when it was; where that is what the caller knows already,
// nothing else is read. ErrNoContext and ErrChanging say why there is none.
//
// The header is read again after the payload: where the time differs, the process wrote meanwhile.
func ReadContext(memory io.ReaderAt, at, known uint64) (said Said, published uint64, err error) {
	for range maxReads {
		h, err := readHeader(memory, at)
		switch {
		case err != nil:
			return Said{}, 0, err
		case h.published == 0:
			continue
		case h.published == known:
			return Said{}, known, nil
		case h.size == 0 || h.size > maxPayload:
			return Said{}, 0, fmt.Errorf("%w: its payload has %d bytes", ErrNoContext, h.size)
		}
		payload := make([]byte, h.size)
		payloadErr := readAt(memory, payload, h.payload)
		again, err := readHeader(memory, at)
		if err != nil {
			return Said{}, 0, err
		}
		if again != h {
			continue
		}
		if payloadErr != nil {
			return Said{}, 0, fmt.Errorf("%w: %w", ErrNoContext, payloadErr)
		}
		said, err = FromContext(payload)
		if err != nil {
			return Said{}, 0, fmt.Errorf("%w: %w", ErrNoContext, err)
		}
		return said, h.published, nil
	}
	return Said{}, 0, ErrChanging
}

// Fields of the messages that a payload is made of (opentelemetry-proto: processcontext, resource, common).
const (
	contextResource    = 1
	resourceAttributes = 1
	keyValueKey        = 1
	keyValueValue      = 2
	anyString          = 1
	anyBool            = 2
	anyInt             = 3
	anyDouble          = 4
)

// FromContext reads the payload of a process context, a ProcessContext in protobuf. Attributes that are texts, numbers or truth values are kept as
// text; lists and bytes are left out, and so are extra_attributes, which are no attributes of the resource.
//
// It is read field by field: a message made of what others wrote can take a hundred times its size.
func FromContext(payload []byte) (said Said, err error) {
	var attributes []profile.Attribute
	service := ""
	take := func(pair []byte) error {
		key, value, err := keyValue(pair)
		if err != nil {
			return err
		}
		switch {
		case !usable(key, value):
		case key == serviceName:
			service = value
		case len(attributes) < maxSeen:
			attributes = append(attributes, profile.Attribute{Key: key, Value: value})
		}
		return nil
	}
	err = fields(payload, func(n protowire.Number, of protowire.Type, resource []byte, _ uint64) error {
		if n != contextResource || of != protowire.BytesType {
			return nil
		}
		return fields(resource, func(n protowire.Number, of protowire.Type, pair []byte, _ uint64) error {
			if n != resourceAttributes || of != protowire.BytesType {
				return nil
			}
			return take(pair)
		})
	})
	if err != nil {
		return Said{}, fmt.Errorf("process context: %w", err)
	}
	return choose(service, attributes), nil
}

// maxSeen is among how many attributes MaxAttributes are chosen.
const maxSeen = 1024

// keyValue gives an attribute; value is "" where it is of a kind that is left out.
func keyValue(pair []byte) (key, value string, err error) {
	err = fields(pair, func(n protowire.Number, of protowire.Type, b []byte, _ uint64) error {
		switch {
		case n == keyValueKey && of == protowire.BytesType:
			key = string(b[:min(len(b), maxKey+1)])
		case n == keyValueValue && of == protowire.BytesType:
			return fields(b, func(n protowire.Number, of protowire.Type, b []byte, number uint64) error {
				switch {
				case n == anyString && of == protowire.BytesType:
					value = string(b[:min(len(b), maxValue+1)])
				case n == anyBool && of == protowire.VarintType:
					value = strconv.FormatBool(number != 0)
				case n == anyInt && of == protowire.VarintType:
					value = strconv.FormatInt(int64(number), 10)
				case n == anyDouble && of == protowire.Fixed64Type:
					value = strconv.FormatFloat(math.Float64frombits(number), 'g', -1, 64)
				default:
					value = ""
				}
				return nil
			})
		}
		return nil
	})
	return key, value, err
}

// fields visits the fields of a message: b is the content of those that have a length, number is the value of the others.
func fields(message []byte, visit func(n protowire.Number, of protowire.Type, b []byte, number uint64) error) error {
	for len(message) > 0 {
		n, of, length := protowire.ConsumeTag(message)
		if length < 0 {
			return protowire.ParseError(length)
		}
		message = message[length:]
		var b []byte
		var number uint64
		switch of {
		case protowire.BytesType:
			b, length = protowire.ConsumeBytes(message)
		case protowire.VarintType:
			number, length = protowire.ConsumeVarint(message)
		case protowire.Fixed64Type:
			number, length = protowire.ConsumeFixed64(message)
		default:
			length = protowire.ConsumeFieldValue(n, of, message)
		}
		if length < 0 {
			return protowire.ParseError(length)
		}
		message = message[length:]
		if err := visit(n, of, b, number); err != nil {
			return err
		}
	}
	return nil
}
