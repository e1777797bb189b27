#!/bin/sh
# Generates the Go code of echo.proto. Needs protoc; fetches the plugins at the
# versions below into a folder that it removes again.
set -eu
cd "$(dirname "$0")/.."
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
for plugin in \
	google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12 \
	google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2 \
	connectrpc.com/connect/cmd/protoc-gen-connect-go@v1.21.1 \
	storj.io/drpc/cmd/protoc-gen-go-drpc@v1.0.0 \
	github.com/containerd/ttrpc/cmd/protoc-gen-go-ttrpc@v1.2.10; do
	GOBIN=$bin go install "$plugin"
done
PATH=$bin:$PATH protoc \
	--go_out=. --go_opt=paths=source_relative \
	--go-grpc_out=. --go-grpc_opt=paths=source_relative \
	--connect-go_out=. --connect-go_opt=paths=source_relative \
	--go-drpc_out=. --go-drpc_opt=paths=source_relative \
	--go-ttrpc_out=. --go-ttrpc_opt=paths=source_relative,prefix=TTRPC \
	echopb/echo.proto
