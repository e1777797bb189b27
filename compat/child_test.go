package compat

// runChild is the process's other life: a server that may die. It reports
// whether the process was such a child.
func runChild() bool { return false }
