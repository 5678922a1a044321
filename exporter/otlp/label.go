package otlp

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"path"
	"strconv"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	profilespb "go.opentelemetry.io/proto/otlp/profiles/v1development"

	"github.com/pilotlight/pilotlight/exporter/pprof"
)

// labelNames are what attributes are called as labels of a pprof profile, where they do not come from one.
var labelNames = map[string]string{
	keyPID: pprof.LabelPID, keyThreadID: pprof.LabelTID, keyTitle: pprof.LabelComm, keyThreadName: pprof.LabelThread, keyExecutablePath: pprof.LabelExe,
	keyCgroup: pprof.LabelCgroup, keyContainerID: pprof.LabelContainerID, keyPodUID: pprof.LabelPodUID, keyUnit: pprof.LabelUnit, keyServiceName: pprof.LabelService,
}

// label is an attribute as a label.
type label struct {
	key     string
	texts   []string
	numbers []int64
	units   []string // of the numbers; nil where they have none
}

// labels are those of samples with the same attributes, in pprof's form. They are shared, and not changed.
type labels struct {
	texts   map[string][]string
	numbers map[string][]int64
	units   map[string][]string
	values  int // how many there are
	bytes   int // of the texts
}

func newLabels() *labels {
	return &labels{texts: make(map[string][]string), numbers: make(map[string][]int64), units: make(map[string][]string)}
}

// add adds a label, but not to another of the same name: that stands nearer to the sample.
func (l *labels) add(of *label) {
	if of == nil || l.has(of.key) {
		return
	}
	if len(of.texts) > 0 {
		l.texts[of.key] = of.texts
	}
	if len(of.numbers) > 0 {
		l.numbers[of.key] = of.numbers
	}
	if of.units != nil {
		l.units[of.key] = of.units
	}
	l.values += len(of.texts) + len(of.numbers)
	for _, t := range of.texts {
		l.bytes += len(t)
	}
}

func (l *labels) has(key string) bool { return l.texts[key] != nil || l.numbers[key] != nil }

// link adds the ids of a link, beside those that attributes may name. An id of zeros is none.
func (l *labels) link(of *profilespb.Link) {
	for _, id := range []struct {
		key   string
		bytes []byte
	}{{labelTraceID, of.TraceId}, {labelSpanID, of.SpanId}} {
		text := hex.EncodeToString(id.bytes)
		if zero(id.bytes) || len(l.texts[id.key]) > 0 && l.texts[id.key][0] == text {
			continue
		}
		l.texts[id.key] = append([]string{text}, l.texts[id.key]...)
		l.values++
	}
}

// ofResource renames what is known of a process, and leaves out what follows from the rest: the names that an Encoder makes of the executable.
func ofResource(attributes []*commonpb.KeyValue) []*commonpb.KeyValue {
	exe := attributeOf(attributes, keyExecutablePath).GetStringValue()
	comm := attributeOf(attributes, keyTitle)
	executable := attributeOf(attributes, keyExecutableName)
	// Once, not for each attribute: whoever wrote the file may have made the path long and the attributes many.
	service, base := serviceName(exe, comm.GetStringValue()), path.Base(exe)
	instance := ""
	if pid, ok := attributeOf(attributes, keyPID).GetValue().(*commonpb.AnyValue_IntValue); ok {
		instance = instanceID(attributeOf(attributes, keyHostName).GetStringValue(), pid.IntValue)
	}
	var out []*commonpb.KeyValue
	for _, a := range attributes {
		switch {
		case a.Key == keyServiceName && a.Value.GetStringValue() == service:
		case a.Key == keyInstanceID && instance != "" && a.Value.GetStringValue() == instance:
		case a.Key == keyExecutableName && exe != "" && a.Value.GetStringValue() == base:
		case a.Key == keyExecutableName && comm == nil:
			out = append(out, keyValue(pprof.LabelComm, executable))
		default:
			out = append(out, a)
		}
	}
	return out
}

// label makes one of an attribute; nil where it has no value.
func (j *join) label(key string, value *commonpb.AnyValue, unit string, rename bool) (*label, error) {
	if name := labelNames[key]; rename && name != "" {
		key = name
	}
	l := &label{key: key}
	values := []*commonpb.AnyValue{value}
	if array := value.GetArrayValue(); array != nil {
		values = array.Values
	}
	for _, v := range values {
		if err := j.memory.spend(64); err != nil {
			return nil, err
		}
		if number, unit, ok := numberOf(v, unit); ok {
			l.numbers = append(l.numbers, number)
			l.units = append(l.units, unit)
			continue
		}
		if v.GetValue() == nil {
			continue
		}
		text, err := j.textOf(v)
		if err != nil {
			return nil, err
		}
		l.texts = append(l.texts, text)
	}
	if !anyUnit(l.units) {
		l.units = nil
	}
	if len(l.texts)+len(l.numbers) == 0 {
		return nil, nil
	}
	return l, nil
}

func anyUnit(units []string) bool {
	for _, u := range units {
		if u != "" {
			return true
		}
	}
	return false
}

// numberOf is a value that is a whole number, or one with a unit of its own as labelValue makes it.
func numberOf(v *commonpb.AnyValue, unit string) (int64, string, bool) {
	if n, ok := v.GetValue().(*commonpb.AnyValue_IntValue); ok {
		return n.IntValue, unit, true
	}
	pair := v.GetKvlistValue().GetValues()
	if len(pair) != 2 || pair[0].Key != keyOfNumber || pair[1].Key != keyOfUnit {
		return 0, "", false
	}
	n, isNumber := pair[0].GetValue().GetValue().(*commonpb.AnyValue_IntValue)
	u, isText := pair[1].GetValue().GetValue().(*commonpb.AnyValue_StringValue)
	if !isNumber || !isText {
		return 0, "", false
	}
	return n.IntValue, u.StringValue, true
}

// textOf is a value as text: as it is, or as JSON where it is a list.
func (j *join) textOf(v *commonpb.AnyValue) (string, error) {
	switch of := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return of.StringValue, nil
	case *commonpb.AnyValue_BoolValue:
		return strconv.FormatBool(of.BoolValue), nil
	case *commonpb.AnyValue_DoubleValue:
		return strconv.FormatFloat(of.DoubleValue, 'g', -1, 64), nil
	case *commonpb.AnyValue_BytesValue:
		if err := j.memory.spend(2 * len(of.BytesValue)); err != nil {
			return "", err
		}
		return base64.StdEncoding.EncodeToString(of.BytesValue), nil
	}
	plain, err := j.plain(v)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(plain)
	return string(text), err
}

// plain is a value as encoding/json takes it: whole numbers as numbers, all that JSON has not as text.
func (j *join) plain(v *commonpb.AnyValue) (any, error) {
	const element = 128
	if err := j.memory.spend(element + 8*len(v.GetStringValue())); err != nil { // a byte can be six as JSON
		return nil, err
	}
	switch of := v.GetValue().(type) {
	case nil:
		return nil, nil
	case *commonpb.AnyValue_BoolValue:
		return of.BoolValue, nil
	case *commonpb.AnyValue_IntValue:
		return of.IntValue, nil
	case *commonpb.AnyValue_ArrayValue:
		list := make([]any, 0)
		for _, e := range of.ArrayValue.GetValues() {
			p, err := j.plain(e)
			if err != nil {
				return nil, err
			}
			list = append(list, p)
		}
		return list, nil
	case *commonpb.AnyValue_KvlistValue:
		list := make(map[string]any)
		for _, e := range of.KvlistValue.GetValues() {
			if err := j.memory.spend(8 * len(e.Key)); err != nil {
				return nil, err
			}
			p, err := j.plain(e.GetValue())
			if err != nil {
				return nil, err
			}
			list[e.Key] = p
		}
		return list, nil
	}
	return j.textOf(v)
}
