// Package semconv reads what spans' attributes say of calls, by OpenTelemetry's names, old and new, and by those of Jaeger and Zipkin.
package semconv

import (
	"cmp"
	"net/netip"
	"strconv"
	"strings"

	"github.com/zeebo/xxh3"

	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/telemetry"
)

// fact is what an attribute tells.
type fact uint8

const (
	service fact = iota
	host
	kind
	rpcSystem
	rpcService
	rpcMethod
	rpcStatus
	rpcTarget
	httpMethod
	httpRoute
	httpURL
	httpStatus
	dbSystem
	dbName
	dbOperation
	dbQuery
	msgSystem
	msgDestination
	peerService
	address
	port
	transport
	failed
	errorType
	requestSize
	responseSize
	resends
	facts // how many there are
)

// names are the attributes that are read; of two for one fact the one that comes first counts.
var names = map[string]fact{
	"service.name": service, "host.name": host, "hostname": host, "host.id": host, "ip": host,
	"span.kind": kind, "error": failed, "error.type": errorType, "otel.status_code": failed,

	"rpc.system": rpcSystem, "rpc.system.name": rpcSystem, "rpc.service": rpcService, "rpc.method": rpcMethod,
	"rpc.grpc.status_code": rpcStatus, "rpc.response.status_code": rpcStatus, "grpc.status_code": rpcStatus, "rpc.connect_rpc.error_code": rpcStatus,

	"grpc.method": rpcMethod, "grpc.status": rpcStatus, "grpc.target": rpcTarget, // of metrics

	"http.request.method": httpMethod, "http.method": httpMethod, "http.route": httpRoute,
	"url.full": httpURL, "http.url": httpURL, "http.target": httpURL, "url.path": httpURL, "http.path": httpURL,
	"http.response.status_code": httpStatus, "http.status_code": httpStatus,

	"db.system": dbSystem, "db.system.name": dbSystem, "db.type": dbSystem, "db.name": dbName, "db.namespace": dbName, "db.instance": dbName,
	"db.operation": dbOperation, "db.operation.name": dbOperation, "db.statement": dbQuery, "db.query.text": dbQuery, "sql.query": dbQuery, "jdbc.query": dbQuery,

	"messaging.system": msgSystem, "messaging.destination.name": msgDestination, "messaging.destination": msgDestination, "message_bus.destination": msgDestination,
	"kafka.topic": msgDestination, "jms.queue": msgDestination, "jms.topic": msgDestination, "rabbit.queue": msgDestination,

	"peer.service":   peerService,
	"server.address": address, "net.peer.name": address, "peer.hostname": address, "network.peer.address": address, "net.sock.peer.addr": address, "net.peer.ip": address,
	"peer.ipv4": address, "peer.address": address,
	"server.port": port, "net.peer.port": port, "peer.port": port,
	"network.transport": transport, "net.transport": transport,

	"http.request.body.size": requestSize, "http.request_content_length": requestSize, "http.request.size": requestSize, "rpc.request.size": requestSize,
	"messaging.message.body.size": requestSize, "messaging.message_payload_size_bytes": requestSize,
	"http.response.body.size": responseSize, "http.response_content_length": responseSize, "http.response.size": responseSize, "rpc.response.size": responseSize,
	"http.request.resend_count": resends, "http.resend_count": resends, "http.retry_count": resends,
}

// Facts are what a span's attributes say. The zero value has none.
type Facts struct{ of [facts]string }

// Wants tells whether an attribute of that name would tell what is not known yet.
func (f *Facts) Wants(name []byte) bool {
	k, ok := names[string(name)]
	return ok && f.of[k] == ""
}

// Set takes in an attribute.
func (f *Facts) Set(name, value string) {
	if k, ok := names[name]; ok && f.of[k] == "" {
		f.of[k] = value
	}
}

// Apply fills in what the facts say of a span, whose Name is set, and whose Kind is if the format has it apart.
func (f *Facts) Apply(s *routemap.Span) {
	if s.Service == "" {
		s.Service = f.of[service]
	}
	if s.Host == "" {
		s.Host = f.of[host]
	}
	if s.Kind == routemap.Unknown {
		s.Kind = Kind(f.of[kind])
	}
	s.Operation = f.operation(s)
	s.Destination = f.of[msgDestination]
	if s.Peer == "" {
		s.Peer, s.PeerKind = f.peer()
	}
	s.Transport = f.transport()
	if s.Class == "" || s.Class == routemap.ClassError {
		s.Class = f.class(s.Class)
	}
	s.Request, s.Response = size(f.of[requestSize]), size(f.of[responseSize])
	s.Print = f.print()
	s.Resent = f.of[resends] != "" && f.of[resends] != "0"
}

// Kind reads a kind as formats write it, in either case and with OTLP's prefix.
func Kind(text string) routemap.Kind {
	switch strings.ToLower(strings.TrimPrefix(text, "SPAN_KIND_")) {
	case "internal", "1":
		return routemap.Internal
	case "server", "2":
		return routemap.Server
	case "client", "3":
		return routemap.Client
	case "producer", "4":
		return routemap.Producer
	case "consumer", "5":
		return routemap.Consumer
	}
	return routemap.Unknown
}

func (f *Facts) operation(s *routemap.Span) string {
	switch method := f.of[rpcMethod]; {
	case method != "" && (strings.Contains(method, "/") || f.of[rpcService] == ""):
		return strings.TrimPrefix(method, "/")
	case method != "":
		return f.of[rpcService] + "/" + method
	}
	verb := strings.ToUpper(f.of[httpMethod])
	switch {
	case verb == "":
	case f.of[httpRoute] != "":
		return verb + " " + f.of[httpRoute]
	case bare(s.Name, verb):
		if path := pathOf(f.of[httpURL]); path != "" {
			return verb + " " + routemap.General(path)
		}
	}
	if f.of[dbSystem] != "" && f.of[dbOperation] != "" {
		return strings.TrimSpace(f.of[dbOperation] + " " + f.of[dbName])
	}
	return ""
}

// bare tells whether a span's name is no more than what all calls of the kind have.
func bare(name, verb string) bool {
	name = strings.ToUpper(name)
	return name == verb || name == "HTTP "+verb || name == "HTTP" || strings.HasPrefix(name, "HTTP://") || strings.HasPrefix(name, "HTTPS://")
}

// pathOf is the path of a URL or of a request's target.
func pathOf(url string) string {
	if _, rest, absolute := strings.Cut(url, "://"); absolute {
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			return rest[i:]
		}
		return "/"
	}
	return url
}

func (f *Facts) peer() (string, routemap.NodeKind) {
	switch {
	case f.of[peerService] != "":
		return f.of[peerService], routemap.External
	case f.of[msgSystem] != "":
		return f.of[msgSystem], routemap.Queue
	case f.of[dbSystem] != "":
		return strings.TrimSpace(f.of[dbSystem] + " " + f.of[dbName]), routemap.External
	case f.of[address] != "" && f.of[port] != "":
		return f.of[address] + ":" + f.of[port], routemap.External
	case f.of[address] != "":
		return f.of[address], routemap.External
	case f.of[rpcTarget] != "":
		return addressOf(f.of[rpcTarget]), routemap.External
	}
	if _, rest, absolute := strings.Cut(f.of[httpURL], "://"); absolute {
		host, _, _ := strings.Cut(rest, "/")
		return strings.Clone(host), routemap.External
	}
	return "", ""
}

// addressOf is what a target of gRPC names: dns:///catalog:50051 is catalog:50051.
func addressOf(target string) string {
	if path, is := strings.CutPrefix(target, "unix:"); is {
		return "unix:" + strings.TrimPrefix(path, "//")
	}
	if _, rest, absolute := strings.Cut(target, "://"); absolute {
		_, rest, _ = strings.Cut(rest, "/")
		return rest
	}
	return strings.TrimPrefix(target, "dns:")
}

func (f *Facts) transport() string {
	switch strings.ToLower(f.of[transport]) {
	case "unix":
		return routemap.UnixStream
	case "pipe":
		return routemap.Pipe
	case "inproc":
		return routemap.InProc
	case routemap.SHM: // as hubs tell
		return routemap.SHM
	case "tcp", "ip_tcp":
	case "":
		if strings.HasPrefix(f.of[rpcTarget], "unix:") {
			return routemap.UnixStream
		}
		if f.of[address] == "" {
			return ""
		}
	default:
		return ""
	}
	if ip, err := netip.ParseAddr(f.of[address]); f.of[address] == "localhost" || err == nil && ip.IsLoopback() {
		return routemap.TCPLoopback
	}
	if f.of[transport] == "" {
		return ""
	}
	return routemap.TCP
}

// class is that of the span's error. said is what the format itself has.
func (f *Facts) class(said string) string {
	if code := f.of[rpcStatus]; code != "" {
		if n, err := strconv.Atoi(code); err == nil {
			code = cmp.Or(telemetry.CodeName(n), code)
		}
		switch code = strings.ToUpper(code); code {
		case "OK":
		case "DEADLINE_EXCEEDED":
			return routemap.ClassTimeout
		case "CANCELLED", "CANCELED":
			return routemap.ClassCancel
		default:
			return clip("grpc " + code)
		}
	}
	if said == "" && !isFailed(f.of[failed]) && (f.of[failed] != "" || f.of[errorType] == "") { // which is there if something failed
		if n, err := strconv.Atoi(f.of[httpStatus]); err != nil || n < 500 {
			return ""
		}
	}
	switch status := f.of[httpStatus]; status {
	case "408", "504":
		return routemap.ClassTimeout
	case "499":
		return routemap.ClassCancel
	default:
		if n, err := strconv.Atoi(status); err == nil && n >= 400 && n < 600 {
			return "http " + status
		}
	}
	if t := f.of[errorType]; t != "" {
		return clip(t)
	}
	return routemap.ClassError
}

func isFailed(text string) bool {
	switch strings.ToLower(text) {
	case "", "false", "ok", "unset", "0":
		return false
	}
	return true
}

// clip bounds a name that others choose.
func clip(s string) string {
	if len(s) > 64 {
		return strings.Clone(strings.ToValidUTF8(s[:64], "")) // which keeps nothing of s
	}
	return s
}

func size(text string) int64 {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 {
		return n
	}
	return -1
}

// print is the same for spans that ask for the same: of a URL with its query, or of a database's statement with its values.
func (f *Facts) print() uint64 {
	what := f.of[dbQuery]
	if what == "" {
		what = f.of[httpURL]
	}
	if what == "" {
		return 0
	}
	return max(xxh3.HashString(f.of[httpMethod]+" "+what), 1)
}
