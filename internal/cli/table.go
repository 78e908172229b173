package cli

import (
	"io"
	"strings"
	"unicode/utf8"
)

// tabWidth is the width that the classic tables assume of a terminal's tab.
const tabWidth = 8

// WriteTable writes rows the way the classic tools did: cells are filled with tabs
// to a common tab stop, the last cell of a row is not filled. A nil header is left
// out.
func WriteTable(w io.Writer, header []string, rows [][]string) error {
	all := rows
	if header != nil {
		all = append([][]string{header}, rows...)
	}
	var b strings.Builder
	stops := tabStops(all)
	for _, row := range all {
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat("\t", stops[i]-utf8.RuneCountInString(cell)/tabWidth))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// tabStops returns for each column how many tab widths it takes: the longest cell
// and at least one blank behind it.
func tabStops(rows [][]string) []int {
	var stops []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(stops) {
				stops = append(stops, 1)
			}
			stops[i] = max(stops[i], utf8.RuneCountInString(cell)/tabWidth+1)
		}
	}
	return stops
}
