package metrics

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Names as tools show them, and the groups that a user would look for them in.
func TestDefaultGroups(t *testing.T) {
	g, err := newGroups(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"__memcpy_avx_unaligned_erms": "memory_copy", "memmove": "memory_copy", "runtime.memmove": "memory_copy", "runtime.memclrNoHeapPointers": "memory_copy",
		"copy_user_enhanced_fast_string": "memory_copy", "rep_movs_alternative": "memory_copy", "_copy_to_iter": "memory_copy", "clear_page_erms": "memory_copy",
		"malloc": "allocation", "_int_malloc": "allocation", "malloc@@GLIBC_2.2.5": "allocation", "operator new": "allocation", "__libc_malloc": "allocation", "je_malloc": "allocation",
		"runtime.mallocgc": "allocation", "runtime.growslice": "allocation", "kmem_cache_alloc_noprof": "allocation", "_PyObject_Malloc": "allocation", "__rust_alloc": "allocation",
		"runtime.gcBgMarkWorker": "garbage_collection", "runtime.scanobject": "garbage_collection", "gc_collect_main": "garbage_collection", "v8::internal::Scavenger::Process": "garbage_collection",
		"pthread_mutex_lock": "locking", "___pthread_mutex_lock": "locking", "futex_wait": "locking", "sync.(*Mutex).Lock": "locking", "sync.(*Mutex).lockSlow": "locking", "native_queued_spin_lock_slowpath": "locking", "__lll_lock_wait": "locking",
		"deflate_slow": "compression", "ZSTD_compressBlock_fast": "compression", "compress/flate.(*compressor).deflate": "compression", "LZ4_compress_fast": "compression", "lzma_decode": "compression",
		"aesni_ctr32_encrypt_blocks": "encryption", "sha256_block_data_order_avx2": "encryption", "crypto/tls.(*Conn).Write": "encryption", "EVP_EncryptUpdate": "encryption", "gcm_ghash_avx": "encryption",
		"encoding/json.(*decodeState).object": "serialization", "google::protobuf::internal::WireFormat::_InternalParse": "serialization", "serde_json::de::from_str": "serialization", "upb_Decode": "serialization",
		"asm_exc_page_fault": "page_faults", "handle_mm_fault": "page_faults", "do_mem_abort": "page_faults",
		"main": "", "main.work": "", "burn_a": "", "_raw_spin_unlock_irqrestore": "locking", "std::vector<int>::push_back": "", "freeze": "", "shader_main": "", "information": "",
	} {
		of := g.of(&profile.Function{Name: name}, profile.FrameNative)
		var got []string
		for i, group := range g.names {
			if of.groups&(1<<i) != 0 {
				got = append(got, group)
			}
		}
		if strings.Join(got, ",") != want {
			t.Errorf("%s is of %q, want %q", name, got, want)
		}
	}
}

func TestCheckGroups(t *testing.T) {
	for name, pattern := range map[string]string{"Upper": "a", "a b": "a", "open": "("} {
		if err := CheckGroups(map[string]string{name: pattern}); err == nil {
			t.Errorf("%s=%s is taken", name, pattern)
		}
	}
}

// A sample is of a group once, however many of its functions are; a group that is called from another's counts for both.
func TestGroupCPU(t *testing.T) {
	changes := map[string]string{"alloc": "^malloc", "fault": "fault$", "none": "^nothing$", "gone": ""}
	for name := range defaultGroups {
		changes[name] = ""
	}
	g, err := newGroups(changes)
	if err != nil {
		t.Fatal(err)
	}
	stack := func(names ...string) *profile.Stack {
		s := &profile.Stack{}
		for _, name := range names {
			s.Locations = append(s.Locations, &profile.Location{Lines: []profile.Line{{Function: &profile.Function{Name: name}}}})
		}
		return s
	}
	p := &profile.Profile{Type: profile.TypeCPU, Samples: []profile.Sample{
		{User: stack("malloc_a", "malloc", "main"), Value: 1},
		{Kernel: stack("page_fault"), User: stack("malloc", "main"), Value: 10},
		{Kernel: stack("page_fault"), User: stack("main"), Value: 100},
		{User: stack("main"), Value: 1000},
		{User: stack("[app+0x10]", "main"), Value: 10000},
	}}
	self, byGroup := g.functionCPU(p)
	if byGroup["alloc"] != 11 || byGroup["fault"] != 110 || byGroup["none"] != 0 || len(byGroup) != 3 {
		t.Errorf("by group: %v", byGroup)
	}
	if self["malloc_a"] != 1 || self["page_fault"] != 110 || self["main"] != 1000 || len(self) != 3 {
		t.Errorf("by function: %v", self)
	}
}

// What is shown are the hottest, by what they did lately; a sum never goes down while it is shown.
func TestFunctionTally(t *testing.T) {
	tally := make(functionTally)
	old := map[string]int64{}
	for i := range 3 * maxFunctions {
		old[strings.Repeat("f", i+1)] = int64(i + 1)
	}
	tally.add(old)
	if shown := tally.shown(); len(shown) != maxFunctions || shown[strings.Repeat("f", 3*maxFunctions)] != 3*maxFunctions {
		t.Errorf("%d shown", len(shown))
	}
	for range 400 {
		tally.add(map[string]int64{"new": 5})
	}
	if hottest := tally.hottest()[0]; hottest != "new" || tally.shown()["new"] != 2000 {
		t.Errorf("%s is the hottest", hottest)
	}
	many := map[string]int64{}
	for i := range 2 * maxKnownFunctions {
		many[strings.Repeat("x", i%50)+string(rune('a'+i%26))+strings.Repeat("y", i/50)] = 1
	}
	tally.add(many)
	if len(tally) > maxKnownFunctions || !slices.Contains(tally.hottest(), "new") {
		t.Errorf("%d functions are kept", len(tally))
	}
}

// Hosts run for months: names of an hour ago make room for those of today.
func TestTallyForgets(t *testing.T) {
	tally := newTally()
	for i := range 2 * maxNames {
		tally.add(map[string]int64{fmt.Sprint("session-", i): 1, "steady": 1})
	}
	if len(tally) != maxNames+1 || tally["steady"].nanos != 2*maxNames {
		t.Errorf("%d names; the steady one has %d", len(tally), tally["steady"].nanos)
	}
	for range forgetAfter {
		tally.add(map[string]int64{"steady": 1})
	}
	tally.add(map[string]int64{"hot": 1000})
	if tally["hot"] == nil || tally["hot"].nanos != 1000 {
		t.Error("a new name finds no room")
	}
}

// BenchmarkGroups tells what a function costs that comes for the first time.
func BenchmarkGroups(b *testing.B) {
	g, err := newGroups(nil)
	if err != nil {
		b.Fatal(err)
	}
	names := []string{"main.work", "runtime.mallocgc", "_ZN3app6Server6handleEv", "ext4_file_read_iter", "__memcpy_avx_unaligned_erms"}
	for i := 0; b.Loop(); i++ {
		g.of(&profile.Function{Name: names[i%len(names)]}, profile.FrameNative)
	}
}
