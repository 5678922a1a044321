package objfile

// Text returns where the first executable segment lies in memory and in the file; false if there is none.
func (l Layout) Text() (start Address, size uint64, off FileOffset, ok bool) {
	if len(l.code) == 0 {
		return 0, 0, 0, false
	}
	first := l.code[0]
	return first.addr, first.size, first.off, true
}
