package agent

import (
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/internal/usage"
	"github.com/stile-ipc/stile/telemetry"
)

// maxName is how long a name is at most, in bytes.
const maxName = 256

// short is a name that a hub takes.
func short(name string) string {
	name = strings.ToValidUTF8(name, "?")
	for len(name) > maxName {
		_, size := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-size]
	}
	return name
}

// Self says who this process is. Its service is what OpenTelemetry's environment names, or its executable.
func Self(id telemetry.Identity) *hubpb.Process {
	exe, _ := os.Executable()
	host, _ := os.Hostname()
	p := &hubpb.Process{
		Identity: id[:], Service: short(serviceName(os.Getenv, exe)), Pid: int64(os.Getpid()), StartUnixNano: started.UnixNano(),
		Executable: short(exe), Host: short(host), Boot: short(usage.Boot()), GoVersion: runtime.Version(), Uid: int64(os.Getuid()),
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		p.StileVersion = short(version(info))
	}
	return p
}

var started = time.Now()

// serviceName is that of a process, as OpenTelemetry's SDKs find it.
func serviceName(env func(string) string, exe string) string {
	if name := env("OTEL_SERVICE_NAME"); name != "" {
		return name
	}
	for pair := range strings.SplitSeq(env("OTEL_RESOURCE_ATTRIBUTES"), ",") {
		if k, v, _ := strings.Cut(pair, "="); strings.TrimSpace(k) == "service.name" && strings.TrimSpace(v) != "" {
			v = strings.TrimSpace(v)
			if plain, err := url.PathUnescape(v); err == nil { // values are percent-encoded
				return plain
			}
			return v
		}
	}
	if name := strings.TrimSuffix(filepath.Base(exe), ".exe"); name != "" && name != "." {
		return name
	}
	return "unknown"
}

const module = "github.com/stile-ipc/stile"

func version(info *debug.BuildInfo) string {
	if info.Main.Path == module {
		return info.Main.Version
	}
	for _, d := range info.Deps {
		if d.Path == module {
			return d.Version
		}
	}
	return ""
}
