// Package compat proves that calls through Stile behave as calls through
// grpc-go do.
//
// Beside a test of what exporters of OpenTelemetry tell a hub, it has three suites, each run over every door (a way of making a client and a
// server) and over grpc-go alone as the reference: grpc-go's own interop cases,
// the grpchan test suite, and differential cases whose transcript must equal the
// reference's. It is a module of its own so that importers of Stile never
// download what only these suites need.
package compat
