//go:build !stile

package main

func stilePeers() []peer { return nil }
