// Package hub takes spans that exporters send by OTLP, makes maps of them, keeps these, and answers questions about them. docs/HUB.md says how it is run.
package hub
