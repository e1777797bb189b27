package hub

import (
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/telemetry"
)

// metrics tells Prometheus what is known since the hub was opened: of routes by OpenTelemetry's names for calls, and by stile_ ones of what these have no name for.
// It is a [prometheus.Collector].
type metrics struct {
	hub  *Hub
	desc map[string]*prometheus.Desc
}

// What is told, and by which labels beside a route's.
const (
	metricClient    = "rpc_client_call_duration_seconds"
	metricServer    = "rpc_server_call_duration_seconds"
	metricErrors    = "stile_call_errors_total"
	metricWait      = "stile_call_wait_seconds_total"
	metricSwitches  = "stile_call_context_switches_total"
	metricWakes     = "stile_call_wakeups_total"
	metricSpin      = "stile_call_spin_seconds_total"
	metricCallQueue = "stile_call_run_queue_seconds_total"
	metricRequest   = "stile_call_request_bytes_total"
	metricResponse  = "stile_call_response_bytes_total"
	metricDecided   = "stile_call_decisions_total"
	metricCPU       = "stile_process_cpu_ratio"
	metricRunQueue  = "stile_process_run_queue_ratio"
	metricProcess   = "stile_process_context_switches"
	metricSpans     = "stile_hub_spans_total"
	metricPoints    = "stile_hub_data_points_total"
	metricPointOut  = "stile_hub_data_points_left_out_total"
	metricReports   = "stile_hub_reports_total"
	metricLeftOut   = "stile_hub_left_out_total"
	metricRefused   = "stile_hub_refused_total"
	metricFailing   = "stile_hub_failing"
	metricRoutes    = "stile_hub_routes"
	metricGone      = "stile_hub_routes_let_go_total"
	metricTogether  = "stile_hub_other_calls_total"
	metricFolded    = "stile_hub_folded_total"

	metricQueueMessages = "stile_queue_messages"
	metricQueueBytes    = "stile_queue_bytes"
	metricQueueMost     = "stile_queue_capacity_bytes"
	metricQueueDelayed  = "stile_queue_delayed_messages"
	metricQueueLag      = "stile_queue_lag_messages"
	metricQueueInFlight = "stile_queue_in_flight_messages"
	metricQueueDead     = "stile_queue_dead_letters"
	metricQueueOldest   = "stile_queue_oldest_message_seconds"
	metricQueueIn       = "stile_queue_published_messages_total"
	metricQueueOut      = "stile_queue_handled_messages_total"
	metricQueueBlocked  = "stile_queue_blocked_seconds_total"
	metricQueueRefused  = "stile_queue_refused_messages_total"
)

// What queues are told by: the topic, or a group of it.
var (
	topicLabels = []string{"messaging_destination_name", "place"}
	groupLabels = []string{"messaging_destination_name", "place", "messaging_consumer_group_name"}
)

var routeLabels = []string{"service_name", "peer_service", "rpc_method", "network_transport", "mode"}

func newMetrics(h *Hub) *metrics {
	m := &metrics{h, map[string]*prometheus.Desc{}}
	for name, of := range map[string]struct {
		help   string
		labels []string
	}{
		metricClient:    {"How long calls took, as their clients saw it.", routeLabels},
		metricServer:    {"How long calls took at their servers.", routeLabels},
		metricErrors:    {"Calls that failed, by class.", append(routeLabels[:len(routeLabels):len(routeLabels)], "error_type")},
		metricWait:      {"Where calls waited: client_queue, transport, server_queue, handler.", append(routeLabels[:len(routeLabels):len(routeLabels)], "part")},
		metricSwitches:  {"Context switches of the processes at both ends, by the route's share of their calls.", routeLabels},
		metricSpin:      {"Time that Stile waited without sleep.", routeLabels},
		metricCallQueue: {"Time that threads of the processes at both ends were ready to run and did not, by the route's share of their calls.", routeLabels},
		metricWakes:     {"Times that Stile woke a peer.", routeLabels},
		metricRequest:   {"Bytes that were sent.", routeLabels},
		metricResponse:  {"Bytes that were answered.", routeLabels},
		metricDecided:   {"What policies and deadlines decided: retries, hedges, breaker, limit, budget, admission, cache_hits, coalesced, fallbacks, late.", append(routeLabels[:len(routeLabels):len(routeLabels)], "decision")},
		metricCPU:       {"Processors that a process used in its last window.", processLabels},
		metricRunQueue:  {"Threads of a process that were ready to run and did not, on average, in its last window.", processLabels},
		metricProcess:   {"Context switches of a process in its last window.", processLabels},
		metricSpans:     {"Spans that were taken in.", nil},
		metricPoints:    {"Data points of metrics that came: of calls, or of something else, which are not kept.", []string{"of"}},
		metricPointOut:  {"Data points of calls' metrics that were left out.", []string{"reason"}},
		metricReports:   {"Windows that processes have reported.", nil},
		metricLeftOut:   {"Spans that were left out.", []string{"reason"}},
		metricRefused:   {"Requests that were refused.", []string{"reason"}},
		metricFailing:   {"1 while windows cannot be kept.", nil},
		metricRoutes:    {"Routes that are told apart here.", nil},
		metricGone:      {"Routes that are not told of any more, as nobody called them for long: one that is called again counts from 0.", nil},
		metricTogether:  {"Calls of routes for which there was no room here: they are those of one, other.", nil},
		metricFolded:    {"What was beyond what maps of windows tell apart: counted together as other, or left out.", []string{"of"}},

		metricQueueMessages: {"Messages that a topic has.", topicLabels},
		metricQueueBytes:    {"Bytes that they have.", topicLabels},
		metricQueueMost:     {"Bytes that they may have.", topicLabels},
		metricQueueDelayed:  {"Messages that are not due yet.", topicLabels},
		metricQueueIn:       {"Messages that a topic got.", topicLabels},
		metricQueueBlocked:  {"How long senders waited for room.", topicLabels},
		metricQueueRefused:  {"Messages for which there was no room.", topicLabels},
		metricQueueLag:      {"Messages never delivered to a group.", groupLabels},
		metricQueueInFlight: {"Messages delivered to a group and not done with.", groupLabels},
		metricQueueDead:     {"Dead letters of a group.", groupLabels},
		metricQueueOldest:   {"Age of the oldest message that a group is not done with.", groupLabels},
		metricQueueOut:      {"Messages that a group was done with, or that were too old.", groupLabels},
	} {
		m.desc[name] = prometheus.NewDesc(name, of.help, of.labels, nil)
	}
	return m
}

var processLabels = []string{"service_name", "host_name", "process_pid"}

// handler answers in Prometheus's text, or OpenMetrics'.
func (m *metrics) handler() http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(m)
	// Of routes that differ in nothing that labels tell one is left out.
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: maxAsking, ErrorHandling: promhttp.ContinueOnError})
}

// Describe implements [prometheus.Collector].
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range m.desc {
		out <- d
	}
}

// Collect implements [prometheus.Collector].
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	m.hub.totals.each(func(k routemap.Key, of *total) { m.route(out, k, &of.Stats) })
	for _, p := range m.hub.agents.list() {
		if p.Window <= 0 {
			continue
		}
		labels := []string{p.Service, p.Host, strconv.FormatInt(p.PID, 10)}
		m.gauge(out, metricCPU, float64(p.CPU)/float64(p.Window), labels...)
		m.gauge(out, metricRunQueue, float64(p.RunQueue)/float64(p.Window), labels...)
		m.gauge(out, metricProcess, float64(p.Voluntary+p.Involuntary), labels...)
	}
	m.queues(out)
	in := m.hub.intake.status()
	m.count(out, metricSpans, float64(in.Spans))
	m.count(out, metricReports, float64(m.hub.agents.status().Reports))
	points := m.hub.agents.measured.status()
	m.count(out, metricPoints, float64(points.Points), "calls")
	m.count(out, metricPoints, float64(points.Others), "others")
	for why, n := range points.LeftOut {
		m.count(out, metricPointOut, float64(n), why)
	}
	for why, n := range in.LeftOut {
		m.count(out, metricLeftOut, float64(n), why)
	}
	for why, n := range in.Refused {
		m.count(out, metricRefused, float64(n), why)
	}
	failing := 0.0
	if m.hub.keeper.failing() != nil {
		failing = 1
	}
	m.gauge(out, metricFailing, failing)
	all, folded := m.hub.totals.status()
	m.gauge(out, metricRoutes, float64(all.Routes))
	m.count(out, metricGone, float64(all.Gone))
	m.count(out, metricTogether, float64(all.Together))
	for what, n := range folded {
		m.count(out, metricFolded, float64(n), what)
	}
}

func (m *metrics) queues(out chan<- prometheus.Metric) {
	m.hub.agents.queues.each(func(k topicName, s *routemap.QueueStats) {
		labels := []string{k.name, s.Where}
		m.gauge(out, metricQueueMessages, float64(s.Messages), labels...)
		m.gauge(out, metricQueueBytes, float64(s.Bytes), labels...)
		m.gauge(out, metricQueueMost, float64(s.MaxBytes), labels...)
		m.gauge(out, metricQueueDelayed, float64(s.Delayed), labels...)
		m.count(out, metricQueueIn, float64(s.Published), labels...)
		m.count(out, metricQueueBlocked, seconds(s.Blocked), labels...)
		m.count(out, metricQueueRefused, float64(s.Refused), labels...)
	}, func(k routemap.QueueKey, s *routemap.QueueStats) {
		labels := []string{k.Topic, s.Where, k.Group}
		m.gauge(out, metricQueueLag, float64(s.Lag), labels...)
		m.gauge(out, metricQueueInFlight, float64(s.InFlight), labels...)
		m.gauge(out, metricQueueDead, float64(s.Dead), labels...)
		m.gauge(out, metricQueueOldest, seconds(s.Oldest), labels...)
		m.count(out, metricQueueOut, float64(s.Handled), labels...)
	})
}

// route tells of one. The totals' lock is held.
func (m *metrics) route(out chan<- prometheus.Metric, k routemap.Key, s *routemap.Stats) {
	labels := []string{k.From.String(), k.To.String(), k.Operation, k.Transport, string(k.Mode)}
	with := func(more string) []string { return append(labels[:len(labels):len(labels)], more) }
	id := ""
	if len(m.hub.totals.exemplars) > 0 {
		id = k.ID()
	}
	m.histogram(out, metricClient, &s.Client, labels, m.hub.totals.exemplarsLocked(id, false, m.hub.cfg.clock()))
	m.histogram(out, metricServer, &s.Server, labels, m.hub.totals.exemplarsLocked(id, true, m.hub.cfg.clock()))
	for class, n := range s.Errors {
		m.count(out, metricErrors, float64(n), with(class)...)
	}
	if s.Waits.Calls > 0 {
		for part, ns := range waitParts(s) {
			m.count(out, metricWait, seconds(ns), with(part)...)
		}
		m.count(out, metricSwitches, float64(s.Switches), labels...)
		m.count(out, metricWakes, float64(s.Wakes), labels...)
		m.count(out, metricSpin, seconds(s.Spin), labels...)
		m.count(out, metricCallQueue, seconds(s.RunQueue), labels...)
	}
	for i, n := range s.Decisions.Counts() {
		if n > 0 {
			m.count(out, metricDecided, float64(n), with(routemap.DecisionNames()[i].Key)...)
		}
	}
	if s.Request.Count() > 0 {
		m.count(out, metricRequest, s.Request.Sum(), labels...)
	}
	if s.Response.Count() > 0 {
		m.count(out, metricResponse, s.Response.Sum(), labels...)
	}
}

// waitParts are sums of where calls waited, as far as it is known, ns, by the names that they have outside.
func waitParts(s *routemap.Stats) map[string]int64 {
	parts := map[string]int64{"server_queue": s.Waits.ServerQueue, "handler": s.Waits.Handler}
	if !s.ServerAlone() {
		parts["client_queue"], parts["transport"] = s.Waits.ClientQueue, s.Waits.Transport
	}
	return parts
}

func seconds[N int64 | float64](ns N) float64 { return float64(ns) / 1e9 }

// Buckets of durations: each has twice the time of the one before.
const (
	leastBound = 1 << 11 // ns
	mostBound  = 1 << 35
)

// histogram tells of one in cumulative buckets, whose bounds are those of telemetry's: so they are exact. Exemplars are told in OpenMetrics alone.
func (m *metrics) histogram(out chan<- prometheus.Metric, name string, h *telemetry.Histogram, labels []string, exemplars []prometheus.Exemplar) {
	if h.Count() == 0 {
		return
	}
	buckets := map[float64]uint64{}
	for bound := int64(leastBound); bound <= mostBound; bound *= 2 {
		buckets[seconds(bound)] = h.Count() - h.Above(bound-1)
	}
	told := prometheus.MustNewConstHistogram(m.desc[name], h.Count(), seconds(h.Sum()), buckets, clean(labels)...)
	if len(exemplars) > 0 {
		if with, err := prometheus.NewMetricWithExemplars(told, exemplars...); err == nil {
			told = with
		}
	}
	out <- told
}

func (m *metrics) count(out chan<- prometheus.Metric, name string, v float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(m.desc[name], prometheus.CounterValue, v, clean(labels)...)
}

func (m *metrics) gauge(out chan<- prometheus.Metric, name string, v float64, labels ...string) {
	if !math.IsNaN(v) {
		out <- prometheus.MustNewConstMetric(m.desc[name], prometheus.GaugeValue, v, clean(labels)...)
	}
}

// clean makes names of others such that Prometheus takes them, which wants UTF-8.
func clean(labels []string) []string {
	all := make([]string, len(labels))
	for i, l := range labels {
		all[i] = strings.ToValidUTF8(l, "?")
	}
	return all
}
