#!/bin/sh
# Tells whether npm is here, and a Node that can build the dashboard: 20.19 or newer.
command -v npm >/dev/null || exit 1
exec node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)'
