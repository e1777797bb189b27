// Package hostmap finds which processes of a host talk to each other, and by what, with nothing added to them: from what the kernel tells of sockets,
// pipes and shared memory.
package hostmap
