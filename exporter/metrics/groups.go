package metrics

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// defaultGroups answer what is asked most: how many cores a thing costs on this host, whoever does it. They are names as they are shown, or, with a star,
// how names begin; no regular expressions: these take fifty times as long, for each function that comes.
var defaultGroups = map[string][]string{
	"memory_copy": {
		"memcpy*", "memmove*", "memset*", "mempcpy*", "bcopy", "bzero", "strcpy*", "strncpy*", "stpcpy*", "__memcpy*", "__memmove*", "__memset*", "__mempcpy*", "__str*", "__stp*",
		"runtime.memmove*", "runtime.memclr*", "runtime.typedmemmove*",
		"copy_user_*", "copy_to_user*", "copy_from_user*", "_copy_to_user*", "_copy_from_user*", "_copy_to_iter*", "_copy_from_iter*", "copy_page*", "copy_mc*", "raw_copy_*", "__arch_copy_*",
		"rep_movs*", "rep_stos*", "clear_page*", "clear_user*", "core::intrinsics::copy*",
	},
	"allocation": {
		"malloc*", "calloc*", "realloc*", "free", "cfree", "memalign*", "posix_memalign", "aligned_alloc", "__libc_malloc*", "__libc_calloc*", "__libc_realloc*", "__libc_free*", "__libc_memalign*",
		"_int_malloc*", "_int_free*", "_int_realloc*", "_int_memalign*", "sysmalloc*", "systrim*", "unlink_chunk*", "operator new*", "operator delete*",
		"tc_*", "tcmalloc::*", "je_*", "arena_malloc*", "arena_dalloc*", "arena_ralloc*", "mi_*", "_mi_*", "rallocx", "sdallocx",
		"runtime.mallocgc*", "runtime.newobject*", "runtime.makeslice*", "runtime.growslice*", "runtime.newarray*", "runtime.makechan*", "runtime.rawstring*", "runtime.rawbyteslice*",
		"runtime.(*mcache)*", "runtime.(*mcentral)*", "runtime.(*mheap).alloc*",
		"alloc::alloc::*", "__rust_alloc*", "__rust_dealloc*", "__rust_realloc*", "__rdl_alloc*", "__rdl_dealloc*", "__rdl_realloc*",
		"kmalloc*", "__kmalloc*", "kfree*", "kmem_cache_alloc*", "kmem_cache_free*", "__alloc_pages*", "alloc_pages*", "__alloc_frozen_pages*", "free_pages*", "__slab_alloc*", "___slab_alloc*", "__slab_free*",
		"PyObject_Malloc", "PyObject_Free", "PyObject_Calloc", "PyObject_Realloc", "_PyObject_Malloc*", "_PyObject_Free*",
	},
	"garbage_collection": {
		"runtime.gcBgMarkWorker*", "runtime.gcDrain*", "runtime.gcAssist*", "runtime.gcStart*", "runtime.gcMark*", "runtime.gcSweep*", "runtime.gcWriteBarrier*", "runtime.bgsweep*", "runtime.bgscavenge*", "runtime.scanobject*",
		"runtime.scanObject*", "runtime.scanSpan*", "runtime.scanblock*", "runtime.greyobject*", "runtime.markroot*", "runtime.sweepone*", "runtime.(*gcWork)*", "runtime.(*sweepLocked)*", "runtime.wbBufFlush*",
		"G1*", "ZGC*", "ZMark*", "Shenandoah*", "PSScavenge*", "ParallelScavenge*", "GCTaskThread*", "WorkGang*",
		"v8::internal::Heap::*", "v8::internal::MarkCompact*", "v8::internal::Scavenger*", "v8::internal::Sweeper*", "v8::internal::MarkingVisitor*", "v8::internal::ConcurrentMarking*",
		"gc_collect*", "deduce_unreachable*", "subtract_refs*", "visit_reachable*", "rb_gc*", "gc_marks*", "gc_sweep*", "gc_start*",
	},
	"locking": {
		"pthread_mutex_*", "pthread_rwlock_*", "pthread_spin_*", "pthread_cond_*", "__pthread_mutex_*", "__pthread_rwlock_*", "__pthread_cond_*", "___pthread_*", "__lll_*", "lll_*", "__GI___lll_*",
		"futex*", "__futex*", "do_futex*", "__x64_sys_futex*", "__arm64_sys_futex*",
		"sync.(*Mutex)*", "sync.(*RWMutex)*", "sync.(*Cond)*", "sync.(*WaitGroup)*", "sync.(*Once)*", "internal/sync.(*Mutex)*", "runtime.lock*", "runtime.unlock*", "runtime.sem*", "runtime.futex*", "runtime.procyield*", "runtime.osyield*",
		"native_queued_spin_lock_slowpath*", "queued_spin_lock*", "_raw_spin_*", "_raw_read_*", "_raw_write_*", "mutex_lock*", "mutex_unlock*", "mutex_spin*", "__mutex_*", "rwsem_*", "down_read*", "down_write*", "up_read*", "up_write*",
		"osq_lock*", "__pv_queued*", "std::mutex*", "std::sync::mutex*", "std::sync::rwlock*", "std::sync::condvar*", "std::sys::sync::*", "parking_lot*",
	},
	"compression": {
		"_tr_*", "deflate*", "inflate*", "compress", "compress2", "uncompress*", "crc32*", "adler32*", "ZSTD_*", "HUF_*", "FSE_*", "LZ4_*", "LZ4F_*", "BZ2_*", "lzma_*", "lz_encoder*", "lz_decoder*", "snappy*", "Brotli*", "zng_*",
		"compress/*", "github.com/klauspost/compress/*", "github.com/golang/snappy*", "github.com/pierrec/lz4*", "github.com/andybalholm/brotli*", "flate2::*", "miniz_oxide::*", "zstd::*", "lz4::*",
	},
	"encryption": {
		"aes*", "AES_*", "vaes*", "gcm_*", "ghash*", "chacha*", "ChaCha*", "poly1305*", "Poly1305*", "sha1*", "sha256*", "sha512*", "sha3*", "SHA1*", "SHA256*", "SHA512*", "_sha256*", "md5*", "MD5*", "EVP_*", "SSL_*", "ssl3_*", "tls1_*", "tls13_*",
		"RSA_*", "EC_*", "ecp_*", "bn_*", "BN_*", "x25519*", "ed25519*", "_gcry_*", "gcry_*", "gnutls_*", "nettle_*", "CRYPTO_*", "crypto_aead*", "crypto_shash*", "crypto_skcipher*",
		"crypto/*", "vendor/golang.org/x/crypto*", "golang.org/x/crypto*", "ring::*", "ring_core*", "rustls::*", "aws_lc*",
	},
	"serialization": {
		"encoding/json.*", "encoding/xml.*", "encoding/gob.*", "encoding/binary.*", "encoding/asn1.*", "encoding/csv.*", "google.golang.org/protobuf/*", "github.com/gogo/protobuf/*", "github.com/golang/protobuf/*",
		"github.com/json-iterator/*", "github.com/goccy/go-json*", "github.com/bytedance/sonic*", "github.com/mailru/easyjson*", "github.com/vmihailenco/msgpack*",
		"google::protobuf::*", "rapidjson::*", "simdjson::*", "nlohmann::*", "flatbuffers::*", "apache::thrift::*", "msgpack::*", "serde::*", "serde_json::*", "<serde*", "<&mut serde_json*", "bincode::*", "prost::*", "rmp::*", "rmp_serde::*",
		"yajl_*", "json_*", "cJSON_*", "xmlParse*", "upb_*", "_json_*", "scanner_call*", "c_make_encoder*", "encoder_listencode*", "scan_once*",
	},
	"page_faults": {
		"asm_exc_page_fault", "exc_page_fault", "do_user_addr_fault*", "handle_mm_fault*", "__handle_mm_fault*", "do_page_fault*", "__do_page_fault*", "page_fault", "async_page_fault", "el0_da", "el0_ia", "do_mem_abort*", "do_translation_fault*",
	},
}

// groups say of functions which groups they are of. Not safe for concurrent use.
type groups struct {
	names []string
	// beginnings of names, by their first byte; patterns are the user's.
	beginnings [256][]beginning
	patterns   []pattern
	known      map[*profile.Function]function
	stacks     map[*profile.Stack]uint64 // groups of all their functions
}

type beginning struct {
	text  string
	whole bool // it is the name
	group uint64
}

type pattern struct {
	*regexp.Regexp
	group uint64
}

// function is what is known of one.
type function struct {
	name   string
	groups uint64 // a bit each
}

const (
	maxGroups = 64
	// maxKnown bounds the functions, and the stacks from one profile to the next, that are remembered; all are looked at again then.
	maxKnown = 1 << 15
)

// CheckGroups says whether groups, by name, are understood: lower-case words, and a regular expression each; "" takes one away.
func CheckGroups(of map[string]string) error {
	_, err := newGroups(of)
	return err
}

// newGroups makes the default groups, with what is changed of them.
func newGroups(changes map[string]string) (*groups, error) {
	g := &groups{known: make(map[*profile.Function]function), stacks: make(map[*profile.Stack]uint64)}
	all := make(map[string]bool)
	for name := range defaultGroups {
		all[name] = true
	}
	for name, pattern := range changes {
		all[name] = pattern != ""
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !all[name] {
			continue
		}
		if !regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`).MatchString(name) {
			return nil, fmt.Errorf("function group %q: want a name of lower-case letters, digits and _", name)
		}
		bit := uint64(1) << len(g.names)
		if g.names = append(g.names, name); len(g.names) > maxGroups {
			return nil, fmt.Errorf("more than %d function groups", maxGroups)
		}
		if text := changes[name]; text != "" {
			compiled, err := regexp.Compile(text)
			if err != nil {
				return nil, fmt.Errorf("function group %s: %w", name, err)
			}
			g.patterns = append(g.patterns, pattern{compiled, bit})
			continue
		}
		for _, text := range defaultGroups[name] {
			begins, isBeginning := strings.CutSuffix(text, "*")
			g.beginnings[begins[0]] = append(g.beginnings[begins[0]], beginning{begins, !isBeginning, bit})
		}
	}
	return g, nil
}

func (g *groups) of(f *profile.Function, kind profile.FrameKind) function {
	if known, ok := g.known[f]; ok {
		return known
	}
	if len(g.known) >= maxKnown {
		clear(g.known)
	}
	out := function{name: labelText(pprof.Name(f, kind), maxFunctionName)}
	unversioned, _, _ := strings.Cut(out.name, "@") // malloc@@GLIBC_2.2.5
	if unversioned != "" {
		for _, b := range g.beginnings[unversioned[0]] {
			if strings.HasPrefix(unversioned, b.text) && (!b.whole || len(unversioned) == len(b.text)) {
				out.groups |= b.group
			}
		}
	}
	for _, p := range g.patterns {
		if p.MatchString(unversioned) {
			out.groups |= p.group
		}
	}
	g.known[f] = out
	return out
}

// functionCPU is the CPU time of a profile by the function that ran, and by group: of each sample that has a function of the group anywhere in its stack, so that
// what an allocator calls is part of its cost. A sample can be of several groups.
func (g *groups) functionCPU(p *profile.Profile) (self, byGroup map[string]int64) {
	self, byGroup = make(map[string]int64), make(map[string]int64)
	for _, name := range g.names {
		byGroup[name] = 0
	}
	if len(g.stacks) >= maxKnown {
		clear(g.stacks)
	}
	for i := range p.Samples {
		s := &p.Samples[i]
		var mask uint64
		for _, side := range []*profile.Stack{s.Kernel, s.User} {
			if side == nil {
				continue
			}
			m, ok := g.stacks[side]
			if !ok {
				for _, l := range side.Locations {
					for _, line := range l.Lines {
						m |= g.of(line.Function, l.Kind).groups
					}
				}
				g.stacks[side] = m
			}
			mask |= m
		}
		for i, name := range g.names {
			if mask&(1<<i) != 0 {
				byGroup[name] += s.Value
			}
		}
		if leaf := s.Leaf(); leaf != nil && !strings.HasPrefix(leaf.Lines[0].Function.Name, "[") { // an address alone would be a series each
			self[g.of(leaf.Lines[0].Function, leaf.Kind).name] += s.Value
		}
	}
	return self, byGroup
}
