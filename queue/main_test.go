package queue

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("QUEUE_TEST_PUBLISHER"); dir != "" { // a process that is going to be killed
		publisher(dir)
		return
	}
	if dir := os.Getenv("QUEUE_TEST_DELAYER"); dir != "" {
		delayer(dir)
		return
	}
	if dir := os.Getenv("QUEUE_TEST_BATCH"); dir != "" {
		batchConsumer(dir)
		return
	}
	if dir := os.Getenv("QUEUE_TEST_ORDERED"); dir != "" {
		orderedConsumer(dir)
		return
	}
	if dir := os.Getenv("QUEUE_TEST_HOST"); dir != "" {
		hostForever(dir)
		return
	}
	if dir := os.Getenv("QUEUE_TEST_DIES"); dir != "" {
		diesOver(dir)
		return
	}
	goleak.VerifyTestMain(m)
}
