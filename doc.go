// Package stile lets unchanged gRPC code talk through shared memory when client
// and server are on the same host, and through grpc-go everywhere else.
//
//	srv := stile.NewServer(opts...)             // was grpc.NewServer(opts...)
//	cc, err := stile.NewClient(target, opts...) // was grpc.NewClient(target, opts...)
//
// Both take grpc-go's own options. A server opens a local door beside each of
// its listeners; a client that resolves its target to such an address, and finds
// the door owned by its own user, calls through it. Whatever the local door
// cannot honour, such as transport credentials, keeps it shut, and calls are
// plain gRPC. [Diagnose], and the command stile doctor, say which way calls go
// and why.
//
// # Environment
//
//   - STILE=off makes everything here plain grpc-go.
//   - STILE_DIR is the folder of the local doors.
//   - STILE_TRANSPORT=unix carries local calls over unix sockets instead of
//     shared memory.
package stile
