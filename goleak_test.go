package stile

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if kind := os.Getenv(envChild); kind != "" {
		runChild(kind)
	}
	goleak.VerifyTestMain(m)
}
