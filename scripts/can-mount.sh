#!/usr/bin/env bash
# Says whether tests can cut the power here, which takes a file system in a file: ends with 0, or tells why not.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
dir=$(mktemp -d)
trap 'umount "$dir/mount" 2>/dev/null || true; rm -rf "$dir"' EXIT
mkdir "$dir/mount"
truncate -s 8M "$dir/image"
mkfs.ext4 -q -F "$dir/image"
mount -o loop "$dir/image" "$dir/mount"
