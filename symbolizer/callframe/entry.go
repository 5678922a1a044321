package callframe

import (
	"strings"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// An Entry is the contents of a CIE or an FDE: what follows its id. They end where the cursor that it was read from does, if its length says more.
type Entry struct {
	Cursor
	IsCIE bool
	// CIE is the position of an FDE's CIE, relative to the data it was read from. Differences wrap: it may lie anywhere.
	CIE uint64
	// Length is what the entry says of itself: 0 ends a list, and there is nothing else in it.
	Length uint64
	// Cut: the entry is longer than what could be read of it.
	Cut bool
}

// ReadEntry reads the head of the entry at a cursor, of .debug_frame if debug is set, and moves the cursor to the next. The entry has failed if
// its head is cut short.
func ReadEntry(in *Cursor, debug bool) Entry {
	e := Entry{Length: uint64(in.Uint32())}
	wide := e.Length == 0xffffffff
	if wide {
		e.Length = in.Uint64()
	}
	room := uint64(max(in.End-in.Pos, 0))
	e.Cut = in.Failed || e.Length > room
	e.Cursor = in.Sub(in.Pos, in.Pos+int(min(e.Length, room)))
	e.Failed = in.Failed
	in.Pos = e.End
	if e.Length == 0 {
		return e
	}
	at := uint64(e.Pos)
	id := uint64(e.Uint32())
	switch {
	case !debug:
		e.CIE, e.IsCIE = at-id, id == 0
	case wide:
		id |= uint64(e.Uint32()) << 32
		e.CIE, e.IsCIE = id, id == ^uint64(0)
	default:
		e.CIE, e.IsCIE = id, id == 0xffffffff
	}
	return e
}

// A CIE is what many functions have in common:
//
//	version u8, augmentation (NUL-terminated), in version 4 size of addresses u8, of segments u8,
//	code alignment uleb, data alignment sleb, column of the return address (u8 in version 1, uleb later),
//	with z in the augmentation the length of what belongs to it, uleb, and for each of its letters:
//	    R encoding of the FDEs' addresses u8    L encoding u8    P encoding u8, pointer    S, B, G nothing
//	instructions
type CIE struct {
	CodeAlign    uint64
	DataAlign    int64
	ReturnColumn uint64
	Encoding     uint8 // of the addresses of FDEs
	Augmented    bool  // begins with z
	Signal       bool  // the functions are called by the kernel
	Instructions Cursor
}

// ReadCIE reads the contents of a CIE; false where they are damaged, or of a kind that is not known.
func ReadCIE(in Cursor) (CIE, bool) {
	var k CIE
	version := in.Uint8()
	augmentation := in.CString()
	if version == 4 {
		if addressBytes, segmentBytes := in.Uint8(), in.Uint8(); addressBytes != 8 || segmentBytes != 0 {
			return CIE{}, false
		}
	}
	k.CodeAlign, k.DataAlign = in.ULEB(), in.SLEB()
	if version == 1 {
		k.ReturnColumn = uint64(in.Uint8())
	} else {
		k.ReturnColumn = in.ULEB()
	}
	if !k.augment(&in, augmentation) || in.Failed || version == 0 || version == 2 || version > 4 {
		return CIE{}, false
	}
	k.Instructions = in
	return k, true
}

// augment reads what the letters of the augmentation stand for.
func (k *CIE) augment(in *Cursor, augmentation string) bool {
	letters, augmented := strings.CutPrefix(augmentation, "z")
	if !augmented {
		return augmentation == ""
	}
	k.Augmented = true
	length := in.ULEB()
	if in.Failed || length > uint64(in.End-in.Pos) {
		return false
	}
	more := in.Sub(in.Pos, in.Pos+int(length))
	in.Pos = more.End
	for _, letter := range letters {
		switch letter {
		case 'R':
			k.Encoding = more.Uint8()
		case 'L':
			more.Uint8()
		case 'P':
			// The personality routine; its encoding may be one that we do not use.
			if encoding := more.Uint8(); encoding&peApplication != peAligned {
				more.Value(encoding)
			} else {
				return false
			}
		case 'S':
			k.Signal = true
		case 'B', 'G': // arm64: return addresses signed by key B; tagged stacks
		default:
			return false // what follows is not known
		}
	}
	return !more.Failed
}

// An FDE tells of one function:
//
//	start, length (both encoded as the CIE says), with z the length of more, uleb, and that, instructions
type FDE struct {
	Start        objfile.Address
	Length       uint64 // in bytes
	Instructions Cursor
}

// ReadFDE reads the contents of the FDE of a function; false where they are damaged.
func (k *CIE) ReadFDE(in Cursor) (FDE, bool) {
	f := FDE{Start: in.Pointer(k.Encoding), Length: in.Value(k.Encoding & peFormat)}
	if k.Augmented {
		in.Take(in.ULEB())
	}
	f.Instructions = in
	return f, !in.Failed
}
