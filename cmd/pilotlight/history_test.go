package main

import "testing"

func TestByteSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "123": 123, "5B": 5, "500MB": 500e6, "2GiB": 2 << 30, "2 GiB": 2 << 30, "1TiB": 1 << 40, "7kB": 7000, "8191PB": -1,
		"": -1, "-1": -1, "MB": -1, "1.5GiB": -1, "9223372036854775807": 9223372036854775807, "9223372036854775807KiB": -1, "1e9": -1,
	} {
		var b byteSize
		err := b.Set(text)
		if err != nil && want >= 0 || err == nil && int64(b) != want {
			t.Errorf("%q became %d, %v; want %d", text, b, err, want)
		}
	}
	for bytes, want := range map[byteSize]string{0: "0", 1000: "1000", 2 << 30: "2GiB", 1536 << 20: "1536MiB"} {
		if got := bytes.String(); got != want {
			t.Errorf("%d is shown as %s, want %s", bytes, got, want)
		}
	}
}
