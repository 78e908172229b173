package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// The kinds of nodes, in the words of messages.
const (
	nothing = "nothing"
	scalar  = "a text"
	list    = "a list"
	mapping = "a mapping"
)

// A node of a YAML document. An alias is the very node it stands for, so that
// aliases of aliases take no memory; see reader.spend for the time they take.
type node struct {
	kind      string
	line, col int    // where it begins, from 1
	text      string // of a scalar: as it is written, without quotes and escapes
	plain     bool   // a scalar without quotes: what looks like a number is one
	block     bool   // a scalar after |: its first line follows line
	binary    bool   // a scalar tagged !!binary: text is what base64 stood for
	flow      bool   // a list or mapping in brackets
	items     []*node
	pairs     []pair
}

// A pair of a mapping.
type pair struct {
	key    *node
	value  *node
	merged bool // came by a merge key (<<): gives way to a pair written here
}

// is is what messages call the node.
func (n *node) is() string {
	switch {
	case n.kind != scalar || !n.plain:
		return n.kind
	case isBool(n.text):
		return "a boolean"
	case isInteger(n.text):
		return "an integer"
	case isNumber(n.text):
		return "a number"
	}
	return n.kind
}

// A syntaxError is why a text is no YAML, and where.
type syntaxError struct {
	line, col int
	msg       string
	alias     bool // what is missing may stand in another part of the document
	limit     bool // it is too much, whatever it is
}

// parseYAML reads the first document of text, which follows on so many lines before it,
// and reports where a second one begins, 0 if there is none. The text has no NUL bytes, is UTF-8 and has newlines
// alone at the ends of its lines.
func parseYAML(text string, before int) (root *node, second int, serr *syntaxError) {
	// A parser that panics must not cost a machine its keys: the rest is salvaged.
	defer func() {
		if p := recover(); p != nil {
			root, second, serr = nil, 0, &syntaxError{line: before + 1, msg: fmt.Sprintf("the parser gave up: %v", p)}
		}
	}()
	if !strings.HasSuffix(text, "\n") {
		text += "\n" // folded texts at the very end are misread without
	}
	tokens := lexer.Tokenize(text)
	for _, t := range tokens {
		t.Position.Line += before
	}
	if serr := checkTokens(tokens); serr != nil {
		return nil, 0, serr
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, 0, asSyntaxError(err)
	}
	var docs []*ast.DocumentNode
	for _, d := range file.Docs {
		if d.Body != nil && d.Body.Type() != ast.DirectiveType {
			docs = append(docs, d)
		}
	}
	if len(docs) == 0 {
		return &node{kind: nothing, line: 1, col: 1}, 0, nil
	}
	if len(docs) > 1 {
		second = position(docs[1].Body).line
		if docs[1].Start != nil {
			second = docs[1].Start.Position.Line
		}
	}
	c := converter{anchors: map[string]*node{}, open: map[string]bool{}}
	root = c.convert(docs[0].Body)
	return root, second, c.err
}

// asSyntaxError is the parser's complaint without its picture of the source.
func asSyntaxError(err error) *syntaxError {
	s := &syntaxError{line: 1, msg: err.Error()}
	var yerr yaml.Error
	if !errors.As(err, &yerr) {
		return s
	}
	s.msg = yerr.GetMessage()
	if t := yerr.GetToken(); t != nil && t.Position != nil {
		s.line, s.col = max(1, t.Position.Line), max(0, t.Position.Column)
	}
	return s
}

// checkTokens refuses what the parser, which recurses and looks back over the
// siblings of each key, could not read in reasonable time and memory.
func checkTokens(tokens token.Tokens) *syntaxError {
	var d depth
	for i, t := range tokens {
		at := syntaxError{line: t.Position.Line, col: t.Position.Column, limit: true}
		if i >= MaxTokens {
			at.msg = fmt.Sprintf("the document has more than %d keys, values and signs", MaxTokens)
			return &at
		}
		if d.add(t) > MaxDepth {
			at.msg = fmt.Sprintf("lists and mappings are nested more than %d deep", MaxDepth)
			return &at
		}
	}
	return nil
}

// depth counts how deep tokens are nested: brackets, and columns at which blocks
// begin.
type depth struct {
	flow, line int
	columns    []int
}

// add takes the next token and returns how deep it is.
func (d *depth) add(t *token.Token) int {
	first := t.Position.Line != d.line
	d.line = t.Position.Line
	switch t.Type {
	case token.SequenceStartType, token.MappingStartType:
		d.flow++
	case token.SequenceEndType, token.MappingEndType:
		d.flow = max(0, d.flow-1)
	case token.SequenceEntryType, token.MappingKeyType:
		d.indent(t.Position.Column)
	default:
		if first {
			d.indent(t.Position.Column)
		}
	}
	return d.flow + len(d.columns)
}

func (d *depth) indent(column int) {
	if d.flow > 0 {
		return
	}
	for len(d.columns) > 0 && d.columns[len(d.columns)-1] >= column {
		d.columns = d.columns[:len(d.columns)-1]
	}
	d.columns = append(d.columns, column)
}

// A converter makes nodes of the parser's tree.
type converter struct {
	anchors map[string]*node
	open    map[string]bool // anchors whose values are being read
	err     *syntaxError    // the first
}

func (c *converter) fail(n *node, format string, args ...any) *node {
	if c.err == nil {
		c.err = &syntaxError{line: n.line, col: n.col, msg: fmt.Sprintf(format, args...)}
	}
	return n
}

// position is a node of nothing at the place of y.
func position(y ast.Node) *node {
	n := &node{kind: nothing, line: 1, col: 1}
	if t := y.GetToken(); t != nil && t.Position != nil {
		n.line, n.col = t.Position.Line, t.Position.Column
	}
	return n
}

func (c *converter) convert(y ast.Node) *node {
	if y == nil {
		return &node{kind: nothing, line: 1, col: 1}
	}
	n := position(y)
	switch y := y.(type) {
	case *ast.MappingNode:
		return c.mapping(n, y.Values, y.IsFlowStyle)
	case *ast.MappingValueNode:
		return c.mapping(n, []*ast.MappingValueNode{y}, false)
	case *ast.SequenceNode:
		n.kind, n.flow = list, y.IsFlowStyle
		for _, v := range y.Values {
			n.items = append(n.items, c.convert(v))
		}
		return n
	case *ast.AnchorNode:
		return c.anchor(y)
	case *ast.AliasNode:
		return c.alias(n, y)
	case *ast.TagNode:
		return c.tagged(n, y)
	case *ast.NullNode:
		return n
	case *ast.LiteralNode:
		n.kind, n.text = scalar, y.Value.Value
		n.block = y.Start.Type == token.LiteralType
		return n
	case ast.ScalarNode:
		n.kind, n.text = scalar, y.GetToken().Value
		t := y.GetToken().Type
		n.plain = t != token.SingleQuoteType && t != token.DoubleQuoteType
		return n
	}
	return c.fail(n, "%s cannot stand here", strings.ToLower(y.Type().String()))
}

func (c *converter) mapping(n *node, values []*ast.MappingValueNode, flow bool) *node {
	n.kind, n.flow = mapping, flow
	var merged []pair
	for i, v := range values {
		key := c.key(v.Key)
		if i == 0 && !flow {
			n.line, n.col = key.line, key.col
		}
		value := c.convert(v.Value)
		if v.Key.IsMergeKey() {
			merged = append(merged, c.merge(value)...)
			continue
		}
		n.pairs = append(n.pairs, pair{key: key, value: value})
	}
	n.addMerged(merged)
	return n
}

// addMerged adds those pairs whose keys n does not have.
func (n *node) addMerged(merged []pair) {
	have := map[string]bool{}
	for _, p := range n.pairs {
		have[canonical(p.key.text)] = true
	}
	for _, p := range merged {
		if name := canonical(p.key.text); !have[name] {
			have[name] = true
			n.pairs = append(n.pairs, pair{key: p.key, value: p.value, merged: true})
		}
	}
}

func (c *converter) key(y ast.MapKeyNode) *node {
	if explicit, ok := y.(*ast.MappingKeyNode); ok {
		key := c.convert(explicit.Value)
		if key.kind == list || key.kind == mapping {
			c.fail(key, "a key must be a text, not %s", key.kind)
		}
		return key
	}
	if y.IsMergeKey() {
		return position(y)
	}
	return c.convert(y)
}

// merge is what the value of a merge key brings: the pairs of a mapping, or those
// of each mapping of a list.
func (c *converter) merge(value *node) []pair {
	switch value.kind {
	case mapping:
		return value.pairs
	case list:
		all := node{}
		for _, item := range value.items {
			if item.kind != mapping {
				c.fail(item, "<< merges mappings, not %s", item.is())
			}
			all.addMerged(item.pairs)
		}
		return all.pairs
	}
	c.fail(value, "<< merges mappings, not %s", value.is())
	return nil
}

func (c *converter) anchor(y *ast.AnchorNode) *node {
	name := y.Name.GetToken().Value
	c.open[name] = true
	n := c.convert(y.Value)
	delete(c.open, name)
	c.anchors[name] = n
	return n
}

func (c *converter) alias(n *node, y *ast.AliasNode) *node {
	name := y.Value.GetToken().Value
	if c.open[name] {
		return c.fail(n, "*%s stands inside what it stands for", name)
	}
	if target, ok := c.anchors[name]; ok {
		return target
	}
	if c.err == nil {
		c.err = &syntaxError{line: n.line, col: n.col, msg: fmt.Sprintf("there is no &%s before *%s", name, name), alias: true}
	}
	return n
}

// tagged reads the few tags that mean something here.
func (c *converter) tagged(at *node, y *ast.TagNode) *node {
	tag, n := y.Start.Value, c.convert(y.Value)
	switch {
	case tag == "!!str" || tag == "!":
		if n.kind == nothing {
			n.kind = scalar
		}
		n.plain = false
	case tag == "!!binary" && n.kind == scalar:
		data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.text), ""))
		if err != nil {
			return c.fail(at, "!!binary: %v", err)
		}
		n.text, n.plain, n.block, n.binary = string(data), false, false, true
	case tag == "!!map" || tag == "!!seq" || tag == "!!null" || tag == "!!bool" || tag == "!!int" || tag == "!!float":
	default:
		return c.fail(at, "the tag %s is not known; known are !!str, !!binary and those of YAML itself", tag)
	}
	return n
}
