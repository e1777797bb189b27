#!/bin/sh
# Tests packages of this module against the releases of grpc-go that it must
# work with, each in a temporary copy of go.mod; nothing in the tree changes.
#
#   scripts/grpc-versions.sh                       every release, root package
#   scripts/grpc-versions.sh v1.85.0 v1.79.3       these releases
#   PKG=./... RUN=Option scripts/grpc-versions.sh  other packages, some tests
#
# Every patch release is known to have the layout of one of those listed here.
# Tests of options newer than go.mod's grpc-go cannot be compiled there; they
# are at the end of this file and join the root package where they can be.
# Exit status: 0 when all pass. GOPROXY must be able to serve the releases.
set -eu

all="v1.70.0 v1.71.1 v1.72.2 v1.73.0 v1.74.2 v1.75.1 v1.76.0 v1.77.0
v1.78.0 v1.79.3 v1.80.0 v1.81.1 v1.82.1 v1.83.2 v1.84.0 v1.85.0"

cd "$(dirname "$0")/.."
root=$(pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

newer_tests() {
	cat <<'GO'
package stile

import (
	"reflect"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/status"
)

func TestNewestCallOptions(t *testing.T) {
	for _, o := range []grpc.CallOption{grpc.CallAuthority("a"), &grpc.AuthorityOverrideCallOption{Authority: "a"}} {
		var c callInfo
		if err := readCallOptions([]grpc.CallOption{o}, &c); err != nil || c.authority != "a" {
			t.Errorf("%T: %q, %v", o, c.authority, err)
		}
	}
	var c callInfo
	err := readCallOptions([]grpc.CallOption{experimental.AcceptCompressors("gzip", " gzip", "identity")}, &c)
	if err != nil || !slices.Equal(c.acceptCompressors, []string{"gzip"}) {
		t.Errorf("%q, %v", c.acceptCompressors, err)
	}
	bad := experimental.AcceptCompressors("stile-none")
	err = readCallOptions([]grpc.CallOption{bad}, &c)
	want := newTestClient(t, insecureOption()).Invoke(t.Context(), "/a/b", nil, nil, bad)
	if status.Code(err) != codes.InvalidArgument || err.Error() != want.Error() {
		t.Errorf("%v, want %v", err, want)
	}
}

func TestNewestOptionsTune(t *testing.T) {
	s := readServer(newTestServer(t, grpc.StaticStreamWindowSize(1<<20), grpc.StaticConnWindowSize(1<<20)))
	if !reflect.DeepEqual(s, defaultServerSettings()) {
		t.Errorf("server: %+v", s)
	}
	c := readClient(newTestClient(t, insecureOption(), grpc.WithLocalDNSResolution(),
		grpc.WithStaticStreamWindowSize(1<<20), grpc.WithStaticConnWindowSize(1<<20)))
	if len(c.shut) > 0 {
		t.Errorf("client: %q", c.shut)
	}
}
GO
}

failed=
for version in ${*:-$all}; do
	mod=$work/$version.mod
	cp go.mod "$mod"
	cp go.sum "$work/$version.sum"
	go get -modfile="$mod" "google.golang.org/grpc@$version" >"$work/get" 2>&1 || {
		cat "$work/get"
		failed="$failed $version"
		continue
	}
	overlay=
	minor=${version#v1.}
	if [ "${minor%%.*}" -ge 78 ]; then
		newer_tests >"$work/newer_test.go"
		printf '{"Replace":{"%s":"%s"}}\n' "$root/newer_options_test.go" "$work/newer_test.go" >"$work/overlay.json"
		overlay=-overlay=$work/overlay.json
	fi
	printf '%s: ' "$version"
	# shellcheck disable=SC2086 # PKG and overlay may be several words or none
	go test -modfile="$mod" $overlay -vet=off -run "${RUN:-.}" ${PKG:-.} || failed="$failed $version"
done

if [ -n "$failed" ]; then
	echo "failed with grpc-go:$failed" >&2
	exit 1
fi
