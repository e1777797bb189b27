// Package databases tests the inbox and the outbox of package queue: with SQLite, and with PostgreSQL when STILE_POSTGRES says how to reach
// one, as in "host=/run/postgresql user=me dbname=test". `make test-postgres` starts one.
package databases
