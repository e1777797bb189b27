// Package policy says how calls behave, in one file: gRPC's service config, as YAML or
// JSON, with one more key, x-stile, at the top and in each methodConfig for what gRPC
// lacks. grpc-go ignores that key, so it loads the same file, as JSON.
//
// [Parse] reads a file strictly: every fault is told at once, with its line. A
// [Config] does not change after that and is safe for concurrent use.
// [Config.Effective] says what holds for a method, [Lint] what is unwise,
// [Diff] what another version would change, and [Config.ServiceConfig] gives what
// grpc-go understands.
//
// [New], [Open] or [Follow] puts a Config in force as a [Policy]: [UnaryClientInterceptor] and its like make
// any grpc-go connection or server obey it, stile.WithPolicy and stile.Policy those of Stile. What
// each part does, and each two together, is in docs/POLICY.md.
//
// As in gRPC, the methodConfig with the most specific name holds alone: method, then
// service, then {}. Nothing is inherited from a less specific one.
package policy
