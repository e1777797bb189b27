// Package clustertest has tests of package queue with a database and servers in processes of their own, which are killed.
package clustertest
