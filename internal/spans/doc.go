// Package spans chooses which calls of a process are traced, and holds the spans of these until they are reported.
package spans
