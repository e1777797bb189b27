//go:build race

package shoptest

// buildFlags has the programs watched for races when the tests are.
var buildFlags = []string{"-race"}

// environment spares the second that a watched program waits at its end.
var environment = []string{"GORACE=atexit_sleep_ms=0"}
