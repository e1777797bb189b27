package compat

import (
	"testing"

	"github.com/fullstorydev/grpchan/grpchantesting"
)

// TestGrpchan runs the suite that grpchan offers to other transports of gRPC.
func TestGrpchan(t *testing.T) {
	for _, d := range doors() {
		underDoor(t, "grpchan", d, func(t *testing.T) {
			e := newEnv(t, d)
			e.serveWith(nil, func(s server) {
				grpchantesting.RegisterTestServiceServer(s, &grpchantesting.TestServer{})
			})
			ok := t.Run("suite", func(t *testing.T) {
				grpchantesting.RunChannelTestCases(t, e.dial(), true)
			})
			e.close()
			e.checkLocal()
			count("grpchan", func(c *tally) {
				c.cases = 5 // one for each kind of call, bidirectional ones in two ways
				c.runs += c.cases
				if !ok {
					c.failed++
				}
			})
		})
	}
}
