//go:build !unix

package usage

func (p *process) rusage() {}
