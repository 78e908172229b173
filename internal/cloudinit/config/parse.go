package config

import (
	"cmp"
	"slices"
	"strings"
)

// Parse reads a cloud-config document, its first line included. It returns what the
// document asks for as far as that is right, and everything that is wrong in order
// of lines. A document that is no cloud-config or no YAML asks for nothing.
func Parse(text string) (Document, []Finding) {
	r := &reader{}
	root, _, serr := parseYAML(strings.ReplaceAll(text, "\r\n", "\n"))
	if serr != nil {
		r.add(&node{line: serr.line, col: serr.col}, Error, "", "%s", serr.msg)
		return Document{}, r.findings
	}
	doc := r.document(r.mapping("", "", root))
	slices.SortStableFunc(r.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return doc, r.findings
}
