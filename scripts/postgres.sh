#!/bin/sh
# Runs a command with a PostgreSQL server of its own, which STILE_POSTGRES says how to reach. Needs Debian's package postgresql, or its programs on PATH.
set -eu
bin=$(dirname "$(command -v initdb || ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null | tail -n 1)")
[ -x "$bin/initdb" ] || { echo "initdb is not here: install PostgreSQL (Debian: postgresql)" >&2; exit 1; }
dir=$(mktemp -d)
as=
if [ "$(id -u)" = 0 ]; then # PostgreSQL refuses to run as root
	chown postgres "$dir"
	as="runuser -u postgres --"
fi
end() {
	(cd / && $as "$bin/pg_ctl" -D "$dir/data" -m immediate stop) >/dev/null 2>&1 || true
	rm -rf "$dir"
}
trap end EXIT
trap 'exit 1' INT TERM
(cd / && $as "$bin/initdb" -D "$dir/data" -U stile -A trust >/dev/null)
(cd / && $as "$bin/pg_ctl" -D "$dir/data" -w -l "$dir/log" -o "-k $dir -c listen_addresses=''" start >/dev/null) || { cat "$dir/log" >&2; exit 1; }
STILE_POSTGRES="host=$dir user=stile dbname=postgres" "$@"
