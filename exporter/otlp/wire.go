package otlp

import "google.golang.org/protobuf/encoding/protowire"

// appendNumber appends a field of a number, which is left out where it is 0.
func appendNumber(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

// appendBytes appends a field of bytes, text or a message.
func appendBytes(b []byte, field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}

// appendPacked appends a field of a list of numbers, which is left out where there are none.
func appendPacked[N int32 | int64](b []byte, field protowire.Number, list []N) []byte {
	if len(list) == 0 {
		return b
	}
	size := 0
	for _, v := range list {
		size += protowire.SizeVarint(uint64(v))
	}
	b = appendLength(b, field, size)
	for _, v := range list {
		b = protowire.AppendVarint(b, uint64(v))
	}
	return b
}

// appendLength appends what stands before a field of so many bytes.
func appendLength(b []byte, field protowire.Number, bytes int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.BytesType), uint64(bytes))
}
