package config

import (
	"strconv"
	"strings"
)

// wrongType complains about a value of another type and shows, where that can be
// told, what was meant.
func (r *reader) wrongType(e Entry, path string, p pair) {
	f := r.add(p.key, Warning, path, "incorrect type for %q (want %s, have %s)", p.key.text, e.Type, p.value.is())
	f.Hint = reshaped(e, p)
}

// reshaped is the pair as its type wants it; "" if that cannot be told.
func reshaped(e Entry, p pair) string {
	v, name := p.value, p.key.text
	switch {
	case e.Type == Mapping && v.kind == list:
		return lines(name+":", joined(v))
	case e.Type == Mappings && v.kind == mapping:
		return lines(name+":", dashed(v))
	case e.Type == Texts && v.kind == scalar && v.text != "":
		return name + ":\n  - " + strings.Join(strings.Split(written(v), ","), "\n  - ")
	case e.Type == Text && (v.kind == list || v.kind == mapping):
		if text := flattened(v); text != "" {
			return name + ": " + text
		}
	case e.Type == Boolean && v.kind == scalar && isBool(v.text),
		e.Type == Integer && v.kind == scalar && isInteger(v.text),
		e.Type == Number && v.kind == scalar && isNumber(v.text):
		return name + ": " + v.text
	}
	return ""
}

// lines puts head before lines of body, if there are any and not too many.
func lines(head string, body []string) string {
	if len(body) == 0 || len(body) > 20 {
		return ""
	}
	return head + "\n  " + strings.Join(body, "\n  ")
}

// joined are the scalar pairs of the mappings in a list.
func joined(n *node) []string {
	var out []string
	for _, item := range n.items {
		for _, p := range item.pairs {
			if p.value.kind != scalar || p.value.block {
				return nil
			}
			out = append(out, p.key.text+": "+written(p.value))
		}
	}
	return out
}

// dashed are the pairs of a mapping as the one entry of a list.
func dashed(n *node) []string {
	out := joined(&node{items: []*node{n}})
	for i := range out {
		out[i] = map[bool]string{true: "- ", false: "  "}[i == 0] + out[i]
	}
	return out
}

// flattened is a list or mapping of scalars as one text with commas.
func flattened(n *node) string {
	var parts []string
	for _, item := range n.items {
		if item.kind != scalar || item.block {
			return ""
		}
		parts = append(parts, item.text)
	}
	for _, p := range n.pairs {
		if p.value.kind != scalar || p.value.block {
			return ""
		}
		parts = append(parts, p.key.text+"="+p.value.text)
	}
	return strings.Join(parts, ",")
}

// written is a scalar as it stands in a document.
func written(n *node) string {
	if n.plain {
		return n.text
	}
	return strconv.Quote(n.text)
}
