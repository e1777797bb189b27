// Package hubpb is how processes report to a hub, in protocol buffers.
package hubpb

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative hub.proto
