package config

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Vars are the values of the variables of documents and scripts, by name without
// the dollar sign. What is not there is not known.
type Vars map[string]string

// variables are those that Substitute knows.
var variables = []string{"private_ipv4", "private_ipv6", "public_ipv4", "public_ipv6"}

// Variables returns the names that Substitute knows.
func Variables() []string { return slices.Clone(variables) }

// Substitute replaces $private_ipv4, $public_ipv4, $private_ipv6 and $public_ipv6
// wherever they stand in text, contents and comments included, and even if a letter
// follows; \$private_ipv4 becomes $private_ipv4. A variable that has no value stays
// and is an error, but in lines that are comments.
func Substitute(text string, vars Vars) (string, []Finding) {
	var out strings.Builder
	var findings []Finding
	start, line := 0, 1 // of the line being read
	for i := 0; i < len(text); {
		name := variableAt(text[i:])
		switch {
		case text[i] == '\\' && variableAt(text[i+1:]) != "":
			name = variableAt(text[i+1:])
			out.WriteString("$" + name)
			i += len(`\$` + name)
		case name != "":
			value, known := vars[name]
			if known = known && value != ""; !known {
				value = "$" + name
			}
			if !known && !strings.HasPrefix(strings.TrimSpace(text[start:i]), "#") {
				findings = append(findings, unresolved(name, line, utf8.RuneCountInString(text[start:i])+1))
			}
			out.WriteString(value)
			i += len("$" + name)
		default:
			if text[i] == '\n' {
				start, line = i+1, line+1
			}
			out.WriteByte(text[i])
			i++
		}
	}
	return out.String(), findings
}

// variableAt is the name of the variable that s begins with; "" if with none.
func variableAt(s string) string {
	if !strings.HasPrefix(s, "$") {
		return ""
	}
	for _, name := range variables {
		if strings.HasPrefix(s[1:], name) {
			return name
		}
	}
	return ""
}

func unresolved(name string, line, column int) Finding {
	return Finding{Line: line, Column: column, Severity: Error,
		Message: fmt.Sprintf("$%s has no value: neither the data source nor COREOS_%s in the environment gives one", name, strings.ToUpper(name))}
}

// sample is text with variables as they might be when it is read at boot, for the
// checks of a document whose variables have no values yet.
func sample(text string) string {
	if !strings.Contains(text, "$") {
		return text
	}
	out, _ := Substitute(text, Vars{"private_ipv4": "10.0.0.1", "public_ipv4": "192.0.2.1", "private_ipv6": "fd00::1", "public_ipv6": "2001:db8::1"})
	return out
}
