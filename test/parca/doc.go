// Package parca holds tests that hand what exporter/otlp writes to Parca's own receiver, and look at what Parca keeps of it. It is
// a module of its own, so that Parca does not stand among what the product needs.
package parca
