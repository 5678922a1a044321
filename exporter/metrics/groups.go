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

// DefaultGroups answer what is asked most: how many cores a thing costs on this host, whoever does it. Patterns match the names that are shown.
var DefaultGroups = map[string]string{
	"memory_copy": `^(__)?(mem(cpy|move|set|pcpy)|bcopy|bzero|strn?cpy|stpn?cpy)(_.*)?$|^__(mem(cpy|move|set|pcpy)|str[a-z]*)_|^runtime\.(memmove|memclr|typedmemmove)|` +
		`^(__)?(raw_)?_?copy_(to|from)_(user|iter)|^(rep_movs|copy_user_|clear_page|clear_user|copy_page|copy_mc|memcpy_|__arch_copy)|^core::intrinsics::copy`,
	"allocation": `^(__libc_|_int_|__GI___libc_|tc_|je_|mi_|rallocx|sdallocx)?(malloc|calloc|realloc|free|memalign|posix_memalign|aligned_alloc)(_.*)?$|^_int_(malloc|free|realloc|memalign)|^(malloc_consolidate|sysmalloc|systrim|unlink_chunk)|` +
		`^operator (new|delete)|^tcmalloc::|^je_|^mi_|^arena_(malloc|dalloc|ralloc)|^runtime\.(mallocgc|newobject|makeslice|growslice|newarray|makechan|rawstring|rawbyteslice|\(\*mcache\)|\(\*mcentral\)|\(\*mheap\)\.alloc)|` +
		`^(alloc::alloc|__rust_(alloc|dealloc|realloc)|__rdl_(alloc|dealloc|realloc))|^(kmalloc|__kmalloc|kfree|kmem_cache_(alloc|free)|__alloc_pages|alloc_pages|free_pages|__slab_(alloc|free)|___slab_alloc)|^PyObject_(Malloc|Free|Calloc|Realloc)|^_PyObject_(Malloc|Free)`,
	"garbage_collection": `^runtime\.(gc[A-Z]|bgsweep|bgscavenge|scanobject|scanblock|greyobject|markroot|sweepone|\(\*gcWork\)|\(\*sweepLocked\)|wbBufFlush)|^(G1|Parallel|ZGC|Shenandoah|PSScavenge|GCTaskThread|WorkGang)|^ZMark|` +
		`^v8::internal::(Heap|MarkCompact|Scavenger|Sweeper|MarkingVisitor|ConcurrentMarking)|^(gc_collect_main|gc_collect|deduce_unreachable|subtract_refs|visit_reachable)$|^(rb_gc|gc_marks|gc_sweep|gc_start)`,
	"locking": `^(__)?pthread_(mutex|rwlock|spin|cond)_|^(___?pthread_|__lll_|lll_|__GI___lll_)|^futex|^(do_|sys_|__x64_sys_|__arm64_sys_)futex|^sync\.\(\*(Mutex|RWMutex|Cond|WaitGroup|Once)\)|^internal/sync\.\(\*Mutex\)|^runtime\.(lock|unlock|sem|futex|procyield|osyield)|` +
		`^(native_queued_spin_lock_slowpath|queued_spin_lock|_raw_(spin|read|write)_|__?mutex_|mutex_(lock|unlock|spin)|rwsem_|down_(read|write)|up_(read|write)|osq_lock|__pv_queued)|^std::(mutex|sync::(mutex|rwlock|condvar))|^parking_lot`,
	"compression":   `(?i)^(_tr_|deflate|inflate|compress2?$|uncompress|crc32|adler32|ZSTD_|HUF_|FSE_|LZ4_|LZ4F_|BZ2_|lzma_|lz_|snappy|Brotli|zng_)|^(compress/|github\.com/(klauspost/compress|golang/snappy|pierrec/lz4|andybalholm/brotli))|^(flate2|miniz_oxide|zstd|lz4)::`,
	"encryption":    `(?i)^(aes|vaes|gcm_|ghash|_?chacha|poly1305|sha(1|256|512|3)|_?sha[0-9]+_|md5|EVP_|SSL_|ssl3?_|tls1?3?_|RSA_|EC_|ecp_|bn_|BN_|x25519|ed25519|_?gcry_|gnutls_|nettle_|CRYPTO_|crypto_(aead|shash|skcipher))|^(crypto/|vendor/golang\.org/x/crypto|golang\.org/x/crypto)|^(ring|rustls|aws_lc)(::|_)`,
	"serialization": `(?i)^(encoding/(json|xml|gob|binary|asn1|csv)|google\.golang\.org/protobuf|github\.com/(gogo|golang)/protobuf|github\.com/(json-iterator|goccy/go-json|bytedance/sonic|mailru/easyjson|vmihailenco/msgpack))|^(google::protobuf|rapidjson|simdjson|nlohmann|flatbuffers|apache::thrift|msgpack)|^(serde|serde_json|bincode|prost|rmp)(::|_)|^<?.*serde::(ser|de)::|^(yajl|json_|cJSON_|xmlParse|upb_|_json_)|^scanner_call|^(c_make_encoder|encoder_listencode|scan_once)`,
	"page_faults":   `^(asm_)?exc_page_fault$|^(do_user_addr_fault|handle_mm_fault|__handle_mm_fault|do_page_fault|__do_page_fault|page_fault|async_page_fault|el0_da|el0_ia|do_mem_abort|do_translation_fault)$`,
}

// groups say of functions which groups they are of. Not safe for concurrent use.
type groups struct {
	names    []string
	patterns []*regexp.Regexp
	known    map[*profile.Function]function
}

// function is what is known of one.
type function struct {
	name   string
	groups uint64 // a bit each
}

const (
	maxGroups = 64
	// maxKnown bounds the functions that are remembered; all are looked at again then.
	maxKnown = 1 << 15
)

// CheckGroups says whether groups, by name, are understood: lower-case words, and a regular expression each.
func CheckGroups(of map[string]string) error {
	_, err := newGroups(of)
	return err
}

func newGroups(of map[string]string) (*groups, error) {
	g := &groups{known: make(map[*profile.Function]function)}
	for _, name := range slices.Sorted(maps.Keys(of)) {
		if of[name] == "" {
			continue // it is left out
		}
		if !regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`).MatchString(name) {
			return nil, fmt.Errorf("function group %q: want a name of lower-case letters, digits and _", name)
		}
		pattern, err := regexp.Compile(of[name])
		if err != nil {
			return nil, fmt.Errorf("function group %s: %w", name, err)
		}
		g.names, g.patterns = append(g.names, name), append(g.patterns, pattern)
	}
	if len(g.names) > maxGroups {
		return nil, fmt.Errorf("%d function groups: %d at most", len(g.names), maxGroups)
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
	for i, pattern := range g.patterns {
		if pattern.MatchString(unversioned) {
			out.groups |= 1 << i
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
	masks := make(map[*profile.Stack]uint64)
	for i := range p.Samples {
		s := &p.Samples[i]
		var mask uint64
		for _, side := range []*profile.Stack{s.Kernel, s.User} {
			if side == nil {
				continue
			}
			m, ok := masks[side]
			if !ok {
				for _, l := range side.Locations {
					for _, line := range l.Lines {
						m |= g.of(line.Function, l.Kind).groups
					}
				}
				masks[side] = m
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
