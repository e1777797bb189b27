package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stile-ipc/stile/hub"
)

// forwardFlags say where a hub sends on what comes.
type forwardFlags struct{ url, headers, ca string }

// forwardHeaders is the variable with headers, as OTEL_EXPORTER_OTLP_HEADERS has them.
const forwardHeaders = "STILE_HUB_FORWARD_HEADERS"

func (f *forwardFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.url, "forward", "", "`URL` to send all that comes on to: http, https, grpc or grpcs")
	flags.StringVar(&f.headers, "forward-headers", "", "`file` of headers to send with it, name=value, one a line, which nobody else may read (default $"+forwardHeaders+", with commas between them)")
	flags.StringVar(&f.ca, "forward-ca", "", "`file` with the certificates to trust there, PEM, instead of the system's")
}

func (f *forwardFlags) forward() (*hub.Forward, error) {
	if f.url == "" {
		if f.headers != "" || f.ca != "" {
			return nil, usageError{errors.New("--forward-headers and --forward-ca go with --forward")}
		}
		return nil, nil
	}
	to := &hub.Forward{URL: f.url, TLS: &tls.Config{MinVersion: tls.VersionTLS12}}
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, err
		}
		to.TLS.RootCAs = x509.NewCertPool()
		if !to.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate", f.ca)
		}
	}
	var err error
	if f.headers == "" {
		to.Headers, err = readHeaders(strings.NewReader(strings.ReplaceAll(os.Getenv(forwardHeaders), ",", "\n")), forwardHeaders)
		return to, err
	}
	file, err := openSecret(f.headers)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	to.Headers, err = readHeaders(file, f.headers)
	return to, err
}

// readHeaders reads lines name=value, in which what is special is written as in URLs.
func readHeaders(r io.Reader, from string) (map[string]string, error) {
	all := map[string]string{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, is := strings.Cut(line, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if name = strings.ToLower(strings.TrimSpace(name)); !is || name == "" || strings.ContainsAny(name, " \t:") || err != nil || strings.ContainsAny(value, "\r\n\x00") {
			return nil, fmt.Errorf("%s: a header is name=value", from) // the line may be a secret
		}
		all[name] = value
	}
	return all, lines.Err()
}
