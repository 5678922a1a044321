package pclntab

import (
	"encoding/binary"
	"fmt"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

const (
	// maxScanBytes bounds each search through segments. A 250 MB Kubernetes binary is searched whole.
	maxScanBytes = 512 << 20
	// maxScanMatches bounds the places that look right at first sight and are read again.
	maxScanMatches = 64
	// scanChunkBytes is the size of the buffer, held only during Open.
	scanChunkBytes = 64 << 10
)

func anySegment(objfile.Segment) bool        { return true }
func writableSegment(s objfile.Segment) bool { return s.Flags&objfile.PF_W != 0 }

// fileRegion returns the part of the image around a that the file backs with one segment.
func fileRegion(f *objfile.File, a objfile.Address) (span, bool) {
	for _, s := range f.Segments() {
		r := span{s.Addr, s.Addr + objfile.Address(s.FileSize)}
		if s.Type == objfile.PT_LOAD && r.end > r.start && r.contains(a) {
			return r, true
		}
	}
	return span{}, false
}

func readFull(f *objfile.File, p []byte, a objfile.Address) bool {
	_, err := f.ReadAtAddress(p, a)
	return err == nil
}

// scanSegments calls found with the address of each aligned word that match accepts, in the segments that want
// accepts, until found returns true. The error says that a bound ended the search.
func scanSegments(f *objfile.File, want func(objfile.Segment) bool, match func(uint64) bool, found func(objfile.Address) bool) error {
	buf := make([]byte, scanChunkBytes)
	budget, matches := uint64(maxScanBytes), 0
	for _, s := range f.Segments() {
		if s.Type != objfile.PT_LOAD || !want(s) {
			continue
		}
		start := (s.Addr + pointerSize - 1) &^ (pointerSize - 1)
		end := s.Addr + objfile.Address(s.FileSize)
		if start < s.Addr || end < s.Addr {
			continue // wraps around
		}
		for a := start; a < end; {
			chunk := buf[:min(uint64(len(buf)), uint64(end-a))]
			n, _ := f.ReadAtAddress(chunk, a)
			chunk = chunk[:n&^(pointerSize-1)]
			if len(chunk) == 0 {
				break
			}
			if budget < uint64(len(chunk)) {
				return fmt.Errorf("%w: no result in the first %d bytes of segments", ErrUnsupported, uint64(maxScanBytes))
			}
			budget -= uint64(len(chunk))
			for i := 0; i+pointerSize <= len(chunk); i += pointerSize {
				if !match(binary.LittleEndian.Uint64(chunk[i:])) {
					continue
				}
				if found(a + objfile.Address(i)) {
					return nil
				}
				if matches++; matches == maxScanMatches {
					return fmt.Errorf("%w: %d places look like it, none is", ErrCorrupt, matches)
				}
			}
			a += objfile.Address(len(chunk))
		}
	}
	return nil
}
