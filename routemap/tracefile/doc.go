// Package tracefile reads spans from files: OTLP JSON, Jaeger's JSON and Zipkin's of version 2, also several values in a row, and gzip. It reads them as
// they come, so that a file may be larger than memory.
package tracefile
