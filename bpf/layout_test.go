package bpf

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
)

var objects = []string{"cpu_x86_bpfel.o", "cpu_arm64_bpfel.o"}

func typesOf(t *testing.T, object string) *btf.Spec {
	t.Helper()
	spec, err := btf.LoadSpec(object)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// The Go structs have the layout of the C ones in both objects.
func TestLayouts(t *testing.T) {
	for _, object := range objects {
		types := typesOf(t, object)
		for name, goType := range map[string]reflect.Type{
			"sample":          reflect.TypeFor[Sample](),
			"labelled_sample": reflect.TypeFor[LabelledSample](),
			"stack_chunk":     reflect.TypeFor[StackChunk](),
			"cpu_counters":    reflect.TypeFor[Counters](),
			"stack_counters":  reflect.TypeFor[StackCounters](),
			"target":          reflect.TypeFor[Target](),
			"process":         reflect.TypeFor[Process](),
			"code_range":      reflect.TypeFor[CodeRange](),
			"unwind_rule":     reflect.TypeFor[UnwindRule](),
		} {
			var c *btf.Struct
			if err := types.TypeByName(name, &c); err != nil {
				t.Fatalf("%s: %v", object, err)
			}
			compareLayouts(t, object+": "+name, c, goType)
		}
	}
}

func compareLayouts(t *testing.T, what string, c *btf.Struct, goType reflect.Type) {
	t.Helper()
	if uintptr(c.Size) != goType.Size() {
		t.Errorf("%s: %d bytes, in Go %d", what, c.Size, goType.Size())
	}
	var fields []reflect.StructField
	for field := range goType.Fields() {
		if field.Name != "_" {
			fields = append(fields, field)
		}
	}
	if len(fields) != len(c.Members) {
		t.Fatalf("%s: %d members, in Go %d", what, len(c.Members), len(fields))
	}
	for i, m := range c.Members {
		field := fields[i]
		if !strings.EqualFold(strings.ReplaceAll(m.Name, "_", ""), field.Name) || uintptr(m.Offset.Bytes()) != field.Offset || m.BitfieldSize != 0 {
			t.Errorf("%s.%s at %d, in Go %s at %d", what, m.Name, m.Offset.Bytes(), field.Name, field.Offset)
		}
		size, err := btf.Sizeof(m.Type)
		if err != nil || uintptr(size) != field.Type.Size() {
			t.Errorf("%s.%s: %d bytes (%v), in Go %d", what, m.Name, size, err, field.Type.Size())
		}
		if inner, ok := btf.UnderlyingType(m.Type).(*btf.Struct); ok {
			compareLayouts(t, what+"."+m.Name, inner, field.Type)
		}
	}
}

func enumOf(t *testing.T, object, name string) []btf.EnumValue {
	t.Helper()
	var enum *btf.Enum
	if err := typesOf(t, object).TypeByName(name, &enum); err != nil {
		t.Fatalf("%s: %v", object, err)
	}
	return enum.Values
}

// A reason's name is its C name: REASON_RING_FULL is ring_full.
func TestReasonNames(t *testing.T) {
	for _, object := range objects {
		values := enumOf(t, object, "reason")
		if len(values) != ReasonCount+1 { // REASON_COUNT itself
			t.Fatalf("%s has %d reasons, want %d", object, len(values)-1, ReasonCount)
		}
		for _, v := range values[:ReasonCount] {
			if want := strings.ToLower(strings.TrimPrefix(v.Name, "REASON_")); Reason(v.Value).String() != want {
				t.Errorf("reason %d is %q, in %s %q", v.Value, Reason(v.Value), object, want)
			}
		}
	}
	// Dashboards and stored profiles hold these words: never change one, only add.
	stable := []string{"none", "ring_full", "bad_record", "stack_map_full", "stack_evicted", "user_unreadable", "kernel_unreadable",
		"max_depth", "unmapped_pc", "stale_mapping", "process_unknown", "file_gone", "file_unreadable", "no_symbol"}
	seen := make(map[string]bool)
	for r := range ReasonCount {
		name := Reason(r).String()
		if name == "" || name == "unknown" || seen[name] {
			t.Errorf("reason %d has no name of its own: %q", r, name)
		}
		seen[name] = true
	}
	for _, name := range stable {
		if !seen[name] {
			t.Errorf("no reason is called %q any more", name)
		}
	}
	for _, r := range []Reason{Reason(ReasonCount), 255, ^Reason(0)} {
		if r.String() != "unknown" {
			t.Errorf("reason %d: %q", uint32(r), r)
		}
	}
	if !slices.Equal(SampleReasons, []Reason{ReasonRingFull, ReasonBadRecord}) {
		t.Errorf("reasons that lose a sample: %v", SampleReasons)
	}
}

// The limits that Go computes with are those of both objects.
func TestLimits(t *testing.T) {
	for _, object := range objects {
		limits := make(map[string]int)
		for _, v := range enumOf(t, object, "limit") {
			limits[v.Name] = int(v.Value)
		}
		if limits["LIMIT_STACK_FRAMES"] != MaxStackFrames || limits["LIMIT_CHUNK_FRAMES"] != chunkFrames || limits["LIMIT_COMM"] != len(Sample{}.Comm) {
			t.Errorf("%s: %v", object, limits)
		}
		kinds := make(map[string]FrameKind)
		for _, v := range enumOf(t, object, "frame_kind") {
			kinds[v.Name] = FrameKind(v.Value)
		}
		if kinds["FRAME_KIND_RAW"] != FrameRaw || kinds["FRAME_KIND_KERNEL"] != FrameKernel || kinds["FRAME_KIND_NATIVE"] != FrameNative {
			t.Errorf("%s: %v", object, kinds)
		}
	}
}

// Every counter is added up: a new one that add does not know shows here.
func TestCountersAdd(t *testing.T) {
	var one, sum Counters
	next := uint64(1)
	var fill func(reflect.Value)
	fill = func(v reflect.Value) {
		for i := range v.NumField() {
			switch f := v.Field(i); {
			case v.Type().Field(i).Name == "_":
			case f.Kind() == reflect.Struct:
				fill(f)
			default:
				f.SetUint(next)
				next++
			}
		}
	}
	fill(reflect.ValueOf(&one).Elem())
	sum.add(&one)
	if !reflect.DeepEqual(sum, one) {
		t.Errorf("0 + %+v = %+v", one, sum)
	}
	sum.add(&one)
	if sum.Seen != 2*one.Seen || sum.RunTimeNs != 2*one.RunTimeNs || sum.User.Fresh != 2*one.User.Fresh || sum.Kernel.Truncated != 2*one.Kernel.Truncated {
		t.Errorf("twice %+v = %+v", one, sum)
	}
}
