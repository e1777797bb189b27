// Package routemap makes a map of who calls whom, and what each route costs, out of traces: routes, critical paths, and what stands out in
// them. docs/MAP.md defines the words.
package routemap
