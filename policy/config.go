package policy

// Config is the content of a policy file. Fields have gRPC's names in JSON, and their
// meaning where gRPC has them. The tag range is an interval, doc describes the field
// in the schema.
type Config struct {
	LoadBalancingPolicy string             `json:"loadBalancingPolicy" doc:"gRPC's load balancing policy, by name; loadBalancingConfig is preferred"`
	LoadBalancingConfig Raw                `json:"loadBalancingConfig" doc:"gRPC's load balancing policies, the first that is known is taken"`
	MethodConfig        []MethodConfig     `json:"methodConfig" doc:"what holds for methods; the entry with the most specific name holds alone"`
	RetryThrottling     *RetryThrottling   `json:"retryThrottling" doc:"stops retries and hedges while too many calls fail"`
	HealthCheckConfig   *HealthCheckConfig `json:"healthCheckConfig" doc:"gRPC's health checks of a client"`
	Stile               FileExtension      `json:"x-stile" doc:"what gRPC lacks, for the whole file"`

	// Warnings are faults that gRPC would pass over too.
	Warnings []Problem `json:"-"`

	file   string
	whole  any // the file as it was written
	places map[string]Place
	byName map[string]nameAt // by "/service/method", "/service/" or ""
}

// nameAt is where a name is: the entry, and its place there.
type nameAt struct{ entry, name int }

// MethodConfig says what holds for the methods it names.
type MethodConfig struct {
	Name                    []Name          `json:"name" doc:"the methods; {} names all"`
	WaitForReady            bool            `json:"waitForReady" doc:"calls wait for a connection instead of failing at once"`
	Timeout                 Duration        `json:"timeout" usual:"86400e9" range:">0" doc:"of a call with all its attempts; the caller's, if it is shorter"`
	MaxRequestMessageBytes  *int64          `json:"maxRequestMessageBytes" range:">=0" doc:"largest request, in bytes"`
	MaxResponseMessageBytes *int64          `json:"maxResponseMessageBytes" range:">=0" doc:"largest response, in bytes"`
	RetryPolicy             *RetryPolicy    `json:"retryPolicy" doc:"another attempt when one has failed"`
	HedgingPolicy           *HedgingPolicy  `json:"hedgingPolicy" doc:"another attempt when one is slow; grpc-go ignores it, Stile does not"`
	Stile                   MethodExtension `json:"x-stile" doc:"what gRPC lacks"`
}

// Name names a method, all of a service's if Method is empty, or all there are.
type Name struct {
	Service string `json:"service" doc:"full name, such as shop.v1.Pricing"`
	Method  string `json:"method" doc:"name within the service"`
}

// RetryPolicy is gRPC's (gRFC A6).
type RetryPolicy struct {
	MaxAttempts          int      `json:"maxAttempts" range:">=2" required:"true" doc:"the first included; gRPC takes at most 5"`
	InitialBackoff       Duration `json:"initialBackoff" usual:"86400e9" range:">0" required:"true" doc:"longest wait before the first retry"`
	MaxBackoff           Duration `json:"maxBackoff" usual:"86400e9" range:">0" required:"true" doc:"longest wait before any retry"`
	BackoffMultiplier    float64  `json:"backoffMultiplier" range:">0" required:"true" doc:"growth of the wait from retry to retry"`
	RetryableStatusCodes []Code   `json:"retryableStatusCodes" list:"filled" required:"true" doc:"of an attempt that may be followed by another"`
}

// HedgingPolicy is gRPC's (gRFC A6).
type HedgingPolicy struct {
	MaxAttempts         int      `json:"maxAttempts" range:">=2" required:"true" doc:"the first included; gRPC takes at most 5"`
	HedgingDelay        Duration `json:"hedgingDelay" range:">=0" doc:"wait before each further attempt; 0: all at once"`
	NonFatalStatusCodes []Code   `json:"nonFatalStatusCodes" doc:"of an attempt that does not end the others"`
}

// RetryThrottling is gRPC's (gRFC A6).
type RetryThrottling struct {
	MaxTokens  float64 `json:"maxTokens" range:"(0,1000]" required:"true" doc:"retries stop at half of it; a failure takes a token"`
	TokenRatio float64 `json:"tokenRatio" range:">0" required:"true" doc:"what a success gives back"`
}

// HealthCheckConfig is gRPC's.
type HealthCheckConfig struct {
	ServiceName string `json:"serviceName" doc:"asked for in grpc.health.v1"`
}

// FileExtension is x-stile at the top.
type FileExtension struct {
	Version        string      `json:"version" doc:"of this file; shown with every decision"`
	Owner          string      `json:"owner" doc:"who answers for the file"`
	DefaultTimeout Duration    `json:"defaultTimeout" usual:"86400e9" range:">0" default:"10s" doc:"of calls that have none"`
	RetryBudget    RetryBudget `json:"retryBudget" doc:"what retries and hedges together may add to the load of a service"`
	Admission      *Admission  `json:"admission" doc:"what a server takes at once, of all its methods together"`
}

// Admission bounds what a server works on. Who waits is served by criticality.
type Admission struct {
	MaxRequests        int      `json:"maxRequests" usual:"1e6" range:">=1" required:"true" doc:"calls at once; the ceiling, if adaptive"`
	MinRequests        int      `json:"minRequests" range:">=1" default:"1" doc:"the floor, if adaptive"`
	MaxPendingRequests int      `json:"maxPendingRequests" usual:"1e6" range:">=0" default:"100" doc:"calls that wait for their turn, the critical first"`
	MaxQueueDelay      Duration `json:"maxQueueDelay" usual:"86400e9" range:">0" default:"0.1s" doc:"longest wait of a call before it is shed"`
	Adaptive           bool     `json:"adaptive" doc:"follow the queue's delay between floor and ceiling"`
}

// RetryBudget has Envoy's words.
type RetryBudget struct {
	BudgetPercent       float64 `json:"budgetPercent" range:"[0,100]" default:"20" doc:"retries and hedges, in percent of the calls made and of the calls under way"`
	MinRetryConcurrency int     `json:"minRetryConcurrency" usual:"1e6" range:">=0" default:"3" doc:"retries and hedges at once that are always allowed"`
}

// MethodExtension is x-stile in a methodConfig.
type MethodExtension struct {
	Owner         string        `json:"owner" doc:"who answers for the entry"`
	Why           string        `json:"why" doc:"the reason for the numbers"`
	Idempotency   Idempotency   `json:"idempotency" doc:"whether the method may run twice; default: idempotency_level of the .proto"`
	Criticality   Criticality   `json:"criticality" default:"default" doc:"what is shed last when there is too much"`
	PerTryTimeout Duration      `json:"perTryTimeout" usual:"86400e9" range:">0" doc:"of one attempt"`
	Hedge         *Hedge        `json:"hedge" doc:"another attempt when one is slow"`
	Breaker       *Breaker      `json:"breaker" doc:"stops calling what fails or is slow, for each endpoint"`
	Limit         *Limit        `json:"limit" doc:"how many calls at once"`
	Cache         *Cache        `json:"cache" doc:"answers given again; only for methods without side effects"`
	Coalesce      bool          `json:"coalesce" doc:"equal calls under way share one answer; only for methods without side effects"`
	Fallback      *Fallback     `json:"fallback" doc:"what is answered when the call fails"`
	Transport     *TransportUse `json:"transport" doc:"which ways to take"`
	SLO           *SLO          `json:"slo" doc:"what the method promises"`
	Shadow        bool          `json:"shadow" doc:"only tell what would be done"`
}

// Hedge is HedgingPolicy with a delay that may follow what is observed.
type Hedge struct {
	HedgingDelay Delay `json:"hedgingDelay" required:"true" doc:"a duration, or a percentile of the method's latency, such as p95"`
	MaxAttempts  int   `json:"maxAttempts" usual:"5" range:">=2" default:"2" doc:"the first included"`
}

// Breaker has resilience4j's words.
type Breaker struct {
	SlidingWindowType                     WindowType `json:"slidingWindowType" default:"COUNT_BASED" doc:"what the window counts: calls or seconds"`
	SlidingWindowSize                     int        `json:"slidingWindowSize" usual:"1e6" range:">=1" default:"100" doc:"calls, or seconds"`
	MinimumNumberOfCalls                  int        `json:"minimumNumberOfCalls" usual:"1e6" range:">=1" default:"100" doc:"in the window before a rate is looked at"`
	FailureRateThreshold                  float64    `json:"failureRateThreshold" range:"(0,100]" default:"50" doc:"percent of failed calls that opens the breaker"`
	SlowCallDurationThreshold             Duration   `json:"slowCallDurationThreshold" usual:"86400e9" range:">0" default:"60s" doc:"from when on a call is slow"`
	SlowCallRateThreshold                 float64    `json:"slowCallRateThreshold" range:"(0,100]" default:"100" doc:"percent of slow calls that opens the breaker"`
	WaitDurationInOpenState               Duration   `json:"waitDurationInOpenState" usual:"86400e9" range:">0" default:"60s" doc:"before calls are tried again"`
	PermittedNumberOfCallsInHalfOpenState int        `json:"permittedNumberOfCallsInHalfOpenState" usual:"1e6" range:">=1" default:"10" doc:"calls that are tried"`
}

// Limit has Envoy's words.
type Limit struct {
	MaxRequests        int  `json:"maxRequests" usual:"1e6" range:">=1" required:"true" doc:"calls at once; the ceiling, if adaptive"`
	MaxPendingRequests int  `json:"maxPendingRequests" usual:"1e6" range:">=0" doc:"calls that wait for their turn"`
	MinRequests        int  `json:"minRequests" range:">=1" default:"1" doc:"the floor, if adaptive"`
	Adaptive           bool `json:"adaptive" doc:"follow the queue's delay between floor and ceiling"`
}

// Cache keeps answers of methods without side effects near the caller.
type Cache struct {
	TTL          Duration `json:"ttl" usual:"31536000e9" range:">0" required:"true" doc:"how long an answer is given again"`
	StaleIfError Duration `json:"staleIfError" usual:"31536000e9" range:">=0" doc:"how much longer, when the call fails"`
	KeyFields    []string `json:"keyFields" list:"distinct" doc:"fields of the request that make the key, such as sku or item.id; default: all"`
	MaxBytes     Size     `json:"maxBytes" usual:"1099511627776" range:">0" default:"16MiB" doc:"of all answers of this entry"`
}

// Fallback says what is answered when the call fails.
type Fallback struct {
	Cache bool `json:"cache" doc:"the last answer, within staleIfError"`
}

// TransportUse says which ways calls take.
type TransportUse struct {
	Prefer []TransportName `json:"prefer" list:"filled,distinct" doc:"in order; others are not taken"`
}

// SLO is what a method promises.
type SLO struct {
	Latency     Duration `json:"latency" range:">0" required:"true" doc:"that the percentile keeps"`
	Percentile  float64  `json:"percentile" range:"(0,100)" default:"99" doc:"of calls"`
	ErrorBudget float64  `json:"errorBudget" range:"[0,1)" doc:"part of the calls that may fail or be slower"`
}
