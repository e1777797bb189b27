// Package telemetry measures what calls cost, and says it in OpenTelemetry's words.
package telemetry
