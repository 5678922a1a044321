package identity

import (
	"bytes"
	"net/url"
	"strings"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// The only variables that are looked at: the rest of an environment is full of secrets.
const (
	variableService    = "OTEL_SERVICE_NAME"
	variableAttributes = "OTEL_RESOURCE_ATTRIBUTES"
)

// MaxEnviron is how much of an environment is worth reading. Variables beyond it are not seen.
const MaxEnviron = 256 << 10

// FromEnviron reads /proc/PID/environ: the environment that the program was started with. Nothing of it is kept but what two variables say:
//
//	OTEL_SERVICE_NAME=checkout\0OTEL_RESOURCE_ATTRIBUTES=service.version=1.2,team=shop%20floor\0...
//
// As everywhere, the first of two variables of one name counts. Pairs that are malformed or too long are left out.
func FromEnviron(environ []byte) Said {
	service, list := "", ""
	var seenService, seenList bool
	for len(environ) > 0 {
		var variable []byte
		variable, environ, _ = bytes.Cut(environ, []byte{0})
		name, value, _ := bytes.Cut(variable, []byte{'='})
		switch {
		case string(name) == variableService && !seenService:
			service, seenService = string(value), true
		case string(name) == variableAttributes && !seenList:
			list, seenList = string(value), true
		}
	}
	attributes := parseAttributes(list)
	if !usable(serviceName, service) {
		service = ""
	}
	var others []profile.Attribute
	for _, a := range attributes {
		switch {
		case a.Key != serviceName:
			others = append(others, a)
		case service == "":
			service = a.Value
		}
	}
	return choose(service, others)
}

// parseAttributes reads pairs, whose values are percent-encoded:
//
//	service.version=1.2,team=shop%20floor
func parseAttributes(list string) (attributes []profile.Attribute) {
	for pair := range strings.SplitSeq(list, ",") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			continue
		}
		key, keyErr := url.PathUnescape(strings.TrimSpace(key))
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if keyErr == nil && err == nil && usable(key, value) {
			attributes = append(attributes, profile.Attribute{Key: strings.Clone(key), Value: strings.Clone(value)})
		}
	}
	return attributes
}
