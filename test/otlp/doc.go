// Package otlp holds tests that read what exporter/otlp writes with OpenTelemetry's own library, the Collector's pdata, and the
// other way round. It is a module of its own, so that the library does not stand among what the product needs.
package otlp
