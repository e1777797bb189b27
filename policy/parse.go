package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Bounds of a file: nobody writes more, and what is read at start-up or from the network must not
// take all memory.
const (
	maxFileSize = 1 << 20 // bytes
	maxNodes    = 100_000 // values, those of aliases counted where they are used
	maxDepth    = 64
	maxFaults   = 1000 // that are told
	maxKeySize  = 200  // bytes of an unknown key that an error repeats
)

// Load reads the policy file at path.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return Parse(path, data)
}

// Parse reads a policy file, YAML or JSON. file names it in errors. The error is
// [Problems] with every fault there is, and what [Config.Warnings] would have; then nothing of the file holds.
func Parse(file string, data []byte) (*Config, error) {
	d := &decoder{file: file, config: &Config{file: file, places: map[string]Place{}, byName: map[string]nameAt{}}}
	if root := d.document(data); root != nil {
		d.decode(root, d.config)
	}
	if len(d.faults) > 0 {
		return nil, append(d.faults, d.warnings...).sorted()
	}
	d.config.Warnings = d.warnings.sorted()
	return d.config, nil
}

// Default is the policy of those who have none: nothing but deadlines.
func Default() *Config {
	c, err := Parse("", []byte("{}"))
	if err != nil {
		panic(err)
	}
	return c
}

// Place says where path, such as methodConfig[0].timeout, is written.
func (c *Config) Place(path string) Place { return c.places[path] }

// document returns the only document's value, or nil with a fault.
func (d *decoder) document(data []byte) *yaml.Node {
	whole := Place{}
	if len(data) > maxFileSize {
		d.faultf(whole, "", "the file has more than %d bytes", maxFileSize)
		return nil
	}
	in := yaml.NewDecoder(strings.NewReader(asYAML(data)))
	var doc yaml.Node
	if err := in.Decode(&doc); errors.Is(err, io.EOF) {
		d.faultf(whole, "", "the file is empty: write {} for a policy without rules")
		return nil
	} else if err != nil {
		d.syntax(err, data)
		return nil
	}
	var more yaml.Node
	if err := in.Decode(&more); err == nil {
		d.faultf(Place{more.Line, more.Column}, "", "a second document begins here: a policy is one document")
		return nil
	} else if !errors.Is(err, io.EOF) {
		d.syntax(err, data)
		return nil
	}
	if len(doc.Content) != 1 {
		d.faultf(whole, "", "the file is empty: write {} for a policy without rules")
		return nil
	}
	return doc.Content[0]
}

// asYAML returns data; if it is JSON, without the escapes that YAML lacks: \/ and \u for
// the halves of a character.
func asYAML(data []byte) string {
	text := string(data)
	if !strings.Contains(text, `\`) || !json.Valid(data) {
		return text
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(text, '\\') // in JSON, an escape
		if i < 0 {
			b.WriteString(text)
			return b.String()
		}
		b.WriteString(text[:i])
		text = text[i:]
		n := 2
		if first := escaped(text); text[1] == '/' {
			b.WriteByte('/')
		} else if utf16.IsSurrogate(first) {
			r := utf16.DecodeRune(first, escaped(text[6:]))
			n = 12
			if r == utf8.RuneError {
				n = 6 // a half without the other
			}
			b.WriteRune(r)
		} else {
			b.WriteString(text[:n])
		}
		text = text[n:]
	}
}

// escaped returns the character of a \u escape that s begins with, or -1.
func escaped(s string) rune {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(s[2:6], 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}

// syntax reports what the YAML reader says.
func (d *decoder) syntax(err error, data []byte) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	var at Place
	if n, _ := fmt.Sscanf(text, "line %d:", &at.Line); n == 1 {
		_, text, _ = strings.Cut(text, ": ")
		at.Column = 1
	}
	d.faultf(at, "", "not YAML or JSON: %s%s", text, hint(data, at.Line))
}

// hint says what people often mean by what is in and before a line that cannot be read.
func hint(data []byte, line int) string {
	lines := strings.Split(string(data), "\n")
	for _, l := range lines[max(0, line-2):min(len(lines), max(line, 1))] {
		switch bare := strings.TrimLeft(l, " "); {
		case strings.HasPrefix(bare, "\t"):
			return "; a tab does not indent: use spaces"
		case strings.HasPrefix(bare, "//"), strings.HasPrefix(bare, "/*"):
			return "; a comment begins with #"
		}
	}
	return ""
}
