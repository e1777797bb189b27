// Package redo is a redo log: what was appended to it is on disk when Append returns, whatever happens
// afterwards, and is told again when the log is opened. Who appends at the same time shares one sync.
//
// The log is a ring of segments, files of fixed size that are written in place. In a file, numbers are little-endian:
//
//	0      page: "stileq01", serial number (8), salt (8), size of the file (8), CRC-32C of these (4)
//	4096   group: CRC-32C (4), length (4), number (8), records; then zeros or older bytes up to the next page
//	...    group
//
// A group's checksum covers the segment's salt, which is drawn anew each time a segment is begun, so that neither what the file held
// before nor anything in a message can pass for a group. Groups are numbered without gaps over all segments. A group is written when the one
// before it is on disk.
//
// A segment is overwritten after a checkpoint: when what its records are about is safe elsewhere.
package redo
