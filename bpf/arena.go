package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Sizes of an Arena.
const (
	// ShardWords is how many words of 4 bytes a shard holds, and so the longest piece that the arena takes.
	ShardWords = int(CpuLimitLIMIT_SHARD_WORDS)
	// MaxShards is how many shards there can be: 48 MiB.
	MaxShards = int(CpuLimitLIMIT_SHARDS)
)

// Arena is memory that programs read and Go writes. It grows by shards. Which parts of it are in use is the caller's to
// know. Not safe for concurrent use.
type Arena struct {
	outer  *ebpf.Map
	shards []arenaShard
}

type arenaShard struct {
	array  *ebpf.Map
	memory *ebpf.Memory
}

// Shards is the number of shards that there are.
func (a *Arena) Shards() int { return len(a.shards) }

// Grow adds a shard.
func (a *Arena) Grow() error {
	number := uint32(len(a.shards))
	array, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "arena_shard", Type: ebpf.Array, KeySize: 4, ValueSize: 4 * uint32(ShardWords), MaxEntries: 1,
		Flags: unix.BPF_F_MMAPABLE,
	})
	if err != nil {
		return fmt.Errorf("shard %d of the arena: %w", number, err)
	}
	memory, err := array.Memory()
	if err == nil {
		err = a.outer.Put(number, array)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("shard %d of the arena: %w", number, err), array.Close())
	}
	a.shards = append(a.shards, arenaShard{array, memory})
	return nil
}

// Write puts words at a position, which must not be in use: the number of a shard, then 20 bits. They must end within the shard.
func (a *Arena) Write(position uint32, words []uint32) error {
	shard, at := int(position)/ShardWords, int(position)%ShardWords
	if shard >= len(a.shards) || at+len(words) > ShardWords {
		return fmt.Errorf("arena: %d words at %#x are beyond its end", len(words), position)
	}
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), 4*len(words))
	if _, err := a.shards[shard].memory.WriteAt(bytes, int64(4*at)); err != nil {
		return fmt.Errorf("arena: %w", err)
	}
	return nil
}

// Read fills words with what was written at a position.
func (a *Arena) Read(position uint32, words []uint32) error {
	shard, at := int(position)/ShardWords, int(position)%ShardWords
	if shard >= len(a.shards) {
		return fmt.Errorf("arena: position %#x is beyond its end", position)
	}
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), 4*len(words))
	if _, err := a.shards[shard].memory.ReadAt(bytes, int64(4*at)); err != nil {
		return fmt.Errorf("arena: %w", err)
	}
	return nil
}

func (a *Arena) bytes() uint64 { return uint64(len(a.shards)) * 4 * uint64(ShardWords) }

func (a *Arena) close() error {
	var errs []error
	for _, s := range a.shards {
		errs = append(errs, s.array.Close()) // its memory is unmapped once nothing refers to it
	}
	a.shards = nil
	return errors.Join(errs...)
}

// Arena is that of the programs.
func (p *Programs) Arena() *Arena { return &p.arena }

// PutProcess tells the programs what code a process has: from then on its stacks are walked by unwind tables. It must be
// in the arena already. Generation must be none that was used before, and not 0.
func (p *Programs) PutProcess(process Process) error {
	process.Check = 0
	var sum uint32
	for _, word := range (*[unsafe.Sizeof(process) / 4]uint32)(unsafe.Pointer(&process)) {
		sum ^= word
	}
	process.Check = sum
	if err := p.changeProcesses(func(m *ebpf.Map) error { return m.Put(process.Tgid, process) }); err != nil {
		return fmt.Errorf("tell BPF of the code of process %d: %w", process.Tgid, err)
	}
	return nil
}

// DeleteProcess takes a process back: its stacks are copied from then on, as those of one that was never put in.
func (p *Programs) DeleteProcess(tgid uint32) error {
	err := p.changeProcesses(func(m *ebpf.Map) error { return m.Delete(tgid) })
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("take the code of process %d back from BPF: %w", tgid, err)
	}
	return nil
}

// changeProcesses changes what the programs know of processes, and then has them look again: they remember it by thread.
func (p *Programs) changeProcesses(change func(*ebpf.Map) error) error {
	p.processes.Lock()
	defer p.processes.Unlock()
	err := change(p.cpu.Processes)
	p.changes++
	_, counted := p.counted.WriteAt(binary.NativeEndian.AppendUint32(nil, p.changes), 0) // no system call, which could fail when the change is done
	return errors.Join(err, counted)
}
