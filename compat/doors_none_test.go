//go:build !stile

package compat

var stileDoors []door
