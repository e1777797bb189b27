//go:build !stile_deaths

package shm

func deathPoint() {}
