// Package pyroscope holds tests that hand what exporter/otlp writes to Pyroscope's own receiver, and look at what Pyroscope makes of it. It is
// a module of its own, so that Pyroscope, whose licence is the AGPL, does not stand among what the product needs.
package pyroscope
