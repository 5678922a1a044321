package otlp

import (
	"fmt"
	"slices"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	profilespb "go.opentelemetry.io/proto/otlp/profiles/v1development"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// maxColumns is how many types of values are read; pprof's profiles have four at most.
const maxColumns = 64

// set is profiles of one scope that are about the same samples: of the same time, and of a type each.
type set struct {
	resource *profilespb.ResourceProfiles
	scope    *profilespb.ScopeProfiles
	// pprof says that FromPprof, or another tool that keeps to the conventions, made it of a pprof profile.
	pprof    bool
	profiles []*profilespb.Profile
	types    []profile.Type // of profiles, and then derived
	// derived is the index of the profile that counts samples, whose period gives the value of the last type; -1 where there is none.
	derived int
}

// sets finds all of a message, in order.
func (d *Data) sets() ([]*set, error) {
	var all []*set
	for _, r := range d.message.ResourceProfiles {
		for _, s := range r.ScopeProfiles {
			if ordered := inPprofOrder(s); ordered != nil {
				all = append(all, &set{resource: r, scope: s, pprof: true, profiles: ordered})
				continue
			}
			var under *set
			for _, p := range s.Profiles {
				if under == nil || !under.takes(d, p) {
					under = &set{resource: r, scope: s}
					all = append(all, under)
				}
				under.profiles = append(under.profiles, p)
			}
		}
	}
	for _, s := range all {
		if len(s.profiles) > maxColumns {
			return nil, fmt.Errorf("it has more than %d types of values", maxColumns)
		}
		s.addTypes(d)
	}
	return all, nil
}

// inPprofOrder gives the profiles of a scope in the order that its types of values had in a pprof profile; nil where the scope does not say.
func inPprofOrder(s *profilespb.ScopeProfiles) []*profilespb.Profile {
	order := attributeOf(s.GetScope().GetAttributes(), keySampleTypeOrder).GetArrayValue().GetValues()
	if len(order) == 0 || len(order) != len(s.Profiles) {
		return nil
	}
	profiles := make([]*profilespb.Profile, len(order))
	for i, v := range order {
		n := v.GetIntValue()
		if n < 0 || n >= int64(len(order)) || profiles[n] != nil {
			return nil
		}
		profiles[n] = s.Profiles[i]
	}
	return profiles
}

func attributeOf(attributes []*commonpb.KeyValue, key string) *commonpb.AnyValue {
	for _, a := range attributes {
		if a.Key == key {
			return a.Value
		}
	}
	return nil
}

// takes says whether another profile is about the same samples. There are few types, so that all are looked at.
func (s *set) takes(d *Data, p *profilespb.Profile) bool {
	first := s.profiles[0]
	return len(s.profiles) < maxColumns && p.TimeUnixNano == first.TimeUnixNano && p.DurationNano == first.DurationNano &&
		!slices.ContainsFunc(s.profiles, func(q *profilespb.Profile) bool { return d.typeOf(q.SampleType) == d.typeOf(p.SampleType) })
}

// addTypes finds the types, and that which is derived: samples that are counted and have a period in another unit, as profilers
// send them, have a value too.
func (s *set) addTypes(d *Data) {
	s.derived = -1
	for _, p := range s.profiles {
		s.types = append(s.types, d.typeOf(p.SampleType))
	}
	i := slices.Index(s.types, profile.TypeSamples)
	if i < 0 || s.pprof || s.profiles[i].Period <= 0 {
		return
	}
	if t := d.typeOf(s.profiles[i].PeriodType); t.Name != "" && !slices.Contains(s.types, t) {
		s.derived = i
		s.types = append(s.types, t)
	}
}

// find gives the index of the type of that name, the last as pprof's tools do; -1 where there is none.
func (s *set) find(name string) int {
	for i, t := range slices.Backward(s.types) {
		if t.Name == name {
			return i
		}
	}
	return -1
}

// profile is that of a type, or that which it is derived from.
func (s *set) profile(i int) *profilespb.Profile {
	if i == len(s.profiles) {
		i = s.derived
	}
	return s.profiles[i]
}

// standard is the name of the type that is meant where none is named.
func (s *set) standard() string {
	if s.pprof {
		if name := attributeOf(s.scope.GetScope().GetAttributes(), keyDefaultSampleType).GetStringValue(); s.find(name) >= 0 {
			return name
		}
	}
	return s.types[len(s.types)-1].Name
}

func (d *Data) text(i int32) string { return d.message.Dictionary.StringTable[i] }

func (d *Data) typeOf(t *profilespb.ValueType) profile.Type {
	return profile.Type{Name: d.text(t.GetTypeStrindex()), Unit: d.text(t.GetUnitStrindex())}
}

// Select leaves the profiles of one type of values, such as "cpu", with all that belongs to them. Samples whose period gives values of the type
// stay as they are. The dictionary stays as it is too.
func (d *Data) Select(sampleType string) (*Data, error) {
	sets, err := d.sets()
	if err != nil {
		return nil, err
	}
	sets, err = choose(sets, sampleType)
	if err != nil {
		return nil, err
	}
	out := shallow(d.message)
	out.ResourceProfiles = nil
	resources := make(map[*profilespb.ResourceProfiles]*profilespb.ResourceProfiles)
	scopes := make(map[*profilespb.ScopeProfiles]*profilespb.ScopeProfiles)
	for _, s := range sets { // in the order of the message
		r, known := resources[s.resource]
		if !known {
			r = shallow(s.resource)
			r.ScopeProfiles = nil
			resources[s.resource] = r
			out.ResourceProfiles = append(out.ResourceProfiles, r)
		}
		scope, known := scopes[s.scope]
		if !known {
			scope = shallow(s.scope)
			scope.Profiles = nil
			if s.pprof {
				scope.Scope = ofOneType(s.scope.Scope, sampleType)
			}
			scopes[s.scope] = scope
			r.ScopeProfiles = append(r.ScopeProfiles, scope)
		}
		kept := shallow(s.profile(s.find(sampleType)))
		d.keepPprof(kept, s.profiles)
		scope.Profiles = append(scope.Profiles, kept)
	}
	return &Data{out}, nil
}

// shallow copies a message, but not those in it.
func shallow[M proto.Message](of M) M {
	in, out := of.ProtoReflect(), of.ProtoReflect().New()
	in.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		out.Set(f, v)
		return true
	})
	out.SetUnknown(in.GetUnknown())
	return out.Interface().(M)
}

// ofOneType is a scope of a pprof profile of which one type is left.
func ofOneType(scope *commonpb.InstrumentationScope, sampleType string) *commonpb.InstrumentationScope {
	out := shallow(scope)
	out.Attributes = nil
	for _, a := range scope.Attributes {
		if a.Key != keySampleTypeOrder && a.Key != keyDefaultSampleType {
			out.Attributes = append(out.Attributes, a)
		}
	}
	out.Attributes = append(out.Attributes, keyValue(keySampleTypeOrder, arrayValue(intValue(0))), keyValue(keyDefaultSampleType, stringValue(sampleType)))
	return out
}

// keepPprof adds to a profile what stands at others of its set, and is about the pprof profile as a whole.
func (d *Data) keepPprof(to *profilespb.Profile, all []*profilespb.Profile) {
	to.AttributeIndices = slices.Clone(to.AttributeIndices)
	has := make(map[int32]bool)
	for _, i := range to.AttributeIndices {
		has[i] = true
	}
	for _, p := range all {
		for _, i := range p.AttributeIndices {
			switch d.text(d.message.Dictionary.AttributeTable[i].KeyStrindex) {
			case keyComment, keyDocURL, keyDropFrames, keyKeepFrames:
				if !has[i] {
					has[i] = true
					to.AttributeIndices = append(to.AttributeIndices, i)
				}
			}
		}
	}
}

// choose leaves the sets that have the type.
func choose(sets []*set, sampleType string) ([]*set, error) {
	var chosen []*set
	var names []string
	seen := make(map[string]bool)
	for _, s := range sets {
		if s.find(sampleType) >= 0 {
			chosen = append(chosen, s)
		}
		for _, t := range s.types {
			if !seen[t.Name] && len(seen) < maxColumns {
				seen[t.Name] = true
				names = append(names, t.Name)
			}
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("it has no values of type %q: it has %q", sampleType, names)
	}
	return chosen, nil
}
