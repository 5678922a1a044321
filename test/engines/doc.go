// Package engines holds tests that run other people's software on what the history wrote: DuckDB, ClickHouse and an S3
// server. It is a module of its own, so that none of these stands among what the product needs.
package engines
