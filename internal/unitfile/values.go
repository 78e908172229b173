package unitfile

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Unfold joins the continued lines of an option's value: each backslash-newline
// counts as one blank (systemd.syntax(7)). Blanks at both ends are dropped.
func Unfold(value string) string {
	return strings.TrimSpace(strings.ReplaceAll(value, "\\\n", " "))
}

// ParseBool reads a boolean as systemd.syntax(7) spells it: 1, yes, y, true, t,
// on and their opposites, in any case.
func ParseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "1", "yes", "y", "true", "t", "on":
		return true, nil
	case "0", "no", "n", "false", "f", "off":
		return false, nil
	}
	return false, fmt.Errorf("%q is no boolean (yes or no)", s)
}

// Infinity is the time span "infinity".
const Infinity time.Duration = math.MaxInt64

// spanUnits holds the units of systemd.time(7). A month is a twelfth of a year, a
// year 365.25 days.
var spanUnits = map[string]time.Duration{
	"":     time.Second,
	"nsec": time.Nanosecond, "ns": time.Nanosecond,
	"usec": time.Microsecond, "us": time.Microsecond, "µs": time.Microsecond, "μs": time.Microsecond,
	"msec": time.Millisecond, "ms": time.Millisecond,
	"seconds": time.Second, "second": time.Second, "sec": time.Second, "s": time.Second,
	"minutes": time.Minute, "minute": time.Minute, "min": time.Minute, "m": time.Minute,
	"hours": time.Hour, "hour": time.Hour, "hr": time.Hour, "h": time.Hour,
	"days": day, "day": day, "d": day,
	"weeks": 7 * day, "week": 7 * day, "w": 7 * day,
	"months": 2629800 * time.Second, "month": 2629800 * time.Second, "M": 2629800 * time.Second,
	"years": 31557600 * time.Second, "year": 31557600 * time.Second, "y": 31557600 * time.Second,
}

const day = 24 * time.Hour

// ParseSpan reads a time span of systemd.time(7), such as "5min 20s", "1.5h" or
// "90": a number without a unit counts seconds. "infinity", and what does not fit
// a Duration, is Infinity.
func ParseSpan(s string) (time.Duration, error) {
	rest := strings.TrimSpace(s)
	if rest == "infinity" {
		return Infinity, nil
	}
	if rest == "" {
		return 0, errors.New("empty time span")
	}
	var total time.Duration
	for rest != "" {
		part, tail, err := spanPart(rest)
		if err != nil {
			return 0, fmt.Errorf("%q is no time span: %w", s, err)
		}
		if total > Infinity-part {
			total = Infinity
		} else {
			total += part
		}
		rest = strings.TrimLeft(tail, " \t\n")
	}
	return total, nil
}

// spanPart reads one number with its unit from the start of s.
func spanPart(s string) (time.Duration, string, error) {
	i := 0
	for i < len(s) && (s[i] >= '0' && s[i] <= '9' || s[i] == '.') {
		i++
	}
	number := s[:i]
	s = strings.TrimLeft(s[i:], " \t\n")
	j := 0
	for j < len(s) && !strings.ContainsRune("0123456789. \t\n", rune(s[j])) {
		j++
	}
	unit, known := spanUnits[s[:j]]
	if number == "" || !known {
		return 0, "", fmt.Errorf("want a number and a unit such as s, min or h at %q", number+s)
	}
	whole, fraction, _ := strings.Cut(number, ".")
	if whole == "" && fraction == "" || strings.Contains(fraction, ".") {
		return 0, "", fmt.Errorf("%q is no number", number)
	}
	d := scale(whole, unit)
	step := unit
	for _, digit := range fraction {
		step /= 10
		d = addSpan(d, time.Duration(digit-'0')*step)
	}
	return d, s[j:], nil
}

func scale(digits string, unit time.Duration) time.Duration {
	if digits == "" {
		return 0
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > int64(Infinity/unit) {
		return Infinity
	}
	return time.Duration(n) * unit
}

func addSpan(a, b time.Duration) time.Duration {
	if a > Infinity-b {
		return Infinity
	}
	return a + b
}

// ParseMode reads an octal file mode or mask such as 0022.
func ParseMode(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o7777 {
		return 0, fmt.Errorf("%q is no octal mode", s)
	}
	return uint32(n), nil
}

// sizeUnits are the suffixes of a size, in the order in which they may follow each
// other. Each stands for 1024 of the next.
const sizeUnits = "EPTGMKB"

// ParseBytes reads a size as systemd does: numbers with a suffix K, M, G, T, P or E to
// the base of 1024, the larger first, such as 512M, 1.5G or 1G 512M. "infinity" is
// math.MaxUint64.
func ParseBytes(s string) (uint64, error) {
	if s == "infinity" {
		return math.MaxUint64, nil
	}
	var total uint64
	units := sizeUnits
	for rest := strings.TrimLeft(s, blanks); ; {
		var part uint64
		var ok bool
		part, rest, units, ok = sizePart(rest, units)
		if !ok || part > math.MaxUint64-total {
			return 0, fmt.Errorf("%q is no size in bytes", s)
		}
		if total += part; rest == "" {
			return total, nil
		}
	}
}

// sizePart reads one number with its suffix from the start of s, and returns which
// suffixes may follow.
func sizePart(s, units string) (n uint64, rest, smaller string, ok bool) {
	end := strings.IndexFunc(s+"x", func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	whole, fraction, fractional := strings.Cut(s[:end], ".")
	n, err := strconv.ParseUint(whole, 10, 64)
	if err != nil || fractional && fraction == "" || strings.Contains(fraction, ".") {
		return 0, "", "", false
	}
	rest = strings.TrimLeft(s[end:], blanks)
	shift := 0
	if rest == "" {
		units = ""
	} else if i := strings.IndexByte(units, rest[0]); i >= 0 {
		shift = 10 * (len(units) - 1 - i)
		rest, units = strings.TrimLeft(rest[1:], blanks), units[i+1:]
	} else {
		return 0, "", "", false
	}
	if n > math.MaxUint64>>shift {
		return 0, "", "", false
	}
	unit := uint64(1) << shift
	f, _ := strconv.ParseFloat("0."+fraction+"0", 64) // digits; 1 if there are many nines
	return n*unit + min(uint64(f*float64(unit)), unit-1), rest, units, true
}

// signals are the names of signal(7) by the numbers that x86, ARM and RISC-V use.
var signals = [...]string{
	1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 5: "TRAP", 6: "ABRT", 7: "BUS", 8: "FPE",
	9: "KILL", 10: "USR1", 11: "SEGV", 12: "USR2", 13: "PIPE", 14: "ALRM", 15: "TERM", 16: "STKFLT",
	17: "CHLD", 18: "CONT", 19: "STOP", 20: "TSTP", 21: "TTIN", 22: "TTOU", 23: "URG", 24: "XCPU",
	25: "XFSZ", 26: "VTALRM", 27: "PROF", 28: "WINCH", 29: "IO", 30: "PWR", 31: "SYS",
}

// The range of real-time signals as the C library numbers them.
const (
	sigRTMin = 34
	sigRTMax = 64
)

// ParseSignal reads a signal by name, with or without SIG, or by number: SIGTERM,
// HUP, 15, RTMIN+3.
func ParseSignal(s string) (int, error) {
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n <= sigRTMax {
		return n, nil
	}
	for n, known := range signals {
		if known != "" && known == name {
			return n, nil
		}
	}
	if n, ok := realtime(name); ok {
		return n, nil
	}
	return 0, fmt.Errorf("%q is no signal", s)
}

func realtime(name string) (int, bool) {
	base, offset := 0, ""
	switch {
	case strings.HasPrefix(name, "RTMIN"):
		base, offset = sigRTMin, name[len("RTMIN"):]
	case strings.HasPrefix(name, "RTMAX"):
		base, offset = sigRTMax, name[len("RTMAX"):]
	default:
		return 0, false
	}
	if offset == "" {
		return base, true
	}
	n, err := strconv.Atoi(offset)
	if err != nil || offset[0] != '+' && offset[0] != '-' || base+n < sigRTMin || base+n > sigRTMax {
		return 0, false
	}
	return base + n, true
}

// SignalName returns the signal's name without SIG, its number as text if it has
// none.
func SignalName(n int) string {
	switch {
	case n > 0 && n < len(signals):
		return signals[n]
	case n >= sigRTMin && n <= sigRTMax:
		return fmt.Sprintf("RTMIN+%d", n-sigRTMin)
	}
	return strconv.Itoa(n)
}

// Expand replaces the specifiers of systemd.unit(5), "Specifiers". lookup returns
// what a letter stands for and whether it knows the letter. "%%" is a percent
// sign. A letter that nobody knows stays as it is, as in systemd.
func Expand(s string, lookup func(letter byte) (string, bool)) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		if s[i] == '%' {
			b.WriteByte('%')
		} else if v, ok := lookup(s[i]); ok {
			b.WriteString(v)
		} else {
			b.WriteByte('%')
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// Escapes is what a backslash in a value means: not every option takes it the same.
type Escapes int

const (
	// Strict: it begins an escape of the C language, inside quotes too; one that
	// nobody knows is an error. So in Environment=.
	Strict Escapes = iota
	// Lenient: as Strict, but one that nobody knows stays as it is, as the \. of grep. So
	// in command lines; systemd warns of those and runs them.
	Lenient
	// Verbatim: it is a character like others. So in names of units, where
	// systemd-escape(1) puts it.
	Verbatim
)

// Words splits a value at blanks. Quotes, single or double, keep blanks inside a word
// (systemd.service(5), "Command lines"). An open quote is an error.
func Words(s string, e Escapes) ([]string, error) {
	ws, err := QuotedWords(s, e)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, w := range ws {
		out = append(out, w.Text)
	}
	return out, nil
}

// Word is one word of a value and whether any of it was quoted or escaped: a bare
// ";" separates commands where a quoted or escaped one does not.
type Word struct {
	Text   string
	Quoted bool
}

// QuotedWords splits as Words does.
func QuotedWords(s string, e Escapes) ([]Word, error) {
	var out []Word
	rest := strings.TrimLeft(s, blanks)
	for rest != "" {
		w, tail, err := nextWord(rest, e)
		if err != nil {
			return nil, err
		}
		out = append(out, w)
		rest = strings.TrimLeft(tail, blanks)
	}
	return out, nil
}

const blanks = " \t\n\r"

// nextWord reads one word from the start of s, which is not blank.
func nextWord(s string, e Escapes) (Word, string, error) {
	var b strings.Builder
	w := Word{}
	quote := byte(0)
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '\\' && e != Verbatim:
			text, n, err := escape(s[i:])
			switch {
			case err == nil:
				b.WriteString(text)
			case e == Strict:
				return Word{}, "", err
			default:
				n = min(2, len(s)-i)
				b.WriteString(s[i : i+n])
			}
			w.Quoted = true
			i += n
			continue
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
			w.Quoted = true
		case quote == 0 && strings.IndexByte(blanks, c) >= 0:
			w.Text = b.String()
			return w, s[i:], nil
		default:
			b.WriteByte(c)
		}
		i++
	}
	if quote != 0 {
		return Word{}, "", fmt.Errorf("quote %c is not closed in %q", quote, s)
	}
	w.Text = b.String()
	return w, "", nil
}

var plainEscapes = map[byte]string{
	'a': "\a", 'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v",
	'\\': "\\", '"': "\"", '\'': "'", 's': " ", ';': ";",
}

// escape reads the escape at the start of s and returns what it stands for and
// how many bytes it takes.
func escape(s string) (string, int, error) {
	if len(s) < 2 {
		return "", 0, errors.New("a backslash ends the value")
	}
	if text, ok := plainEscapes[s[1]]; ok {
		return text, 2, nil
	}
	switch s[1] {
	case 'x':
		return numeric(s, 2, 2, 16)
	case 'u':
		return numeric(s, 2, 4, 16)
	case 'U':
		return numeric(s, 2, 8, 16)
	case '0', '1', '2', '3', '4', '5', '6', '7':
		return numeric(s, 1, 3, 8)
	}
	_, size := utf8.DecodeRuneInString(s[1:])
	return "", 0, fmt.Errorf("unknown escape %q", s[:1+size])
}

// numeric reads the digits of an escape. \x and octal make a byte, \u and \U a
// character. A zero byte is refused: no argument can hold it.
func numeric(s string, from, digits, base int) (string, int, error) {
	end := from + digits
	if len(s) < end {
		return "", 0, fmt.Errorf("escape %q is cut short", s)
	}
	n, err := strconv.ParseUint(s[from:end], base, 32)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("unknown escape %q", s[:end])
	}
	if digits > 3 {
		if !utf8.ValidRune(rune(n)) {
			return "", 0, fmt.Errorf("escape %q is no character", s[:end])
		}
		return string(rune(n)), end, nil
	}
	if n > 255 {
		return "", 0, fmt.Errorf("escape %q is no byte", s[:end])
	}
	return string([]byte{byte(n)}), end, nil
}

// CheckEnvName says whether a word can name an environment variable: letters,
// digits and underscores, no digit first.
func CheckEnvName(name string) error {
	if name == "" {
		return errors.New("the name of the variable is empty")
	}
	for i, c := range []byte(name) {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return fmt.Errorf("%q is no name of a variable", name)
		}
	}
	return nil
}

// CheckAssignment says whether s is NAME=VALUE.
func CheckAssignment(s string) error {
	name, _, ok := strings.Cut(s, "=")
	if !ok {
		return fmt.Errorf("%q is no assignment NAME=VALUE", s)
	}
	return CheckEnvName(name)
}

// ParseEnvFile reads the text of an EnvironmentFile= (systemd.exec(5)) and returns
// its assignments NAME=VALUE in order. Lines that are empty or begin with # or ;
// are comments. A value may begin with quoted parts: '...' is literal; in "..." a
// backslash before ", \, ` or $ escapes it. Quotes behind what is not quoted are
// characters like others. Outside quotes a backslash escapes any character, and at
// the end of a line continues it. Lines that are no assignment
// are left out and returned in problems, by number.
func ParseEnvFile(text string) (assignments []string, problems []error) {
	list, problems := EnvFileVariables(text)
	for _, v := range list {
		assignments = append(assignments, v.Name+"="+v.Value)
	}
	return assignments, problems
}

// EnvVariable is one assignment of an EnvironmentFile=.
type EnvVariable struct {
	Name, Value string
	Line        int // at which it begins, from 1
}

// EnvFileError is a line of an EnvironmentFile= that is no assignment.
type EnvFileError struct {
	Line int // from 1
	Err  error
}

// Error is "line N: WHY".
func (e *EnvFileError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap is why the line is none.
func (e *EnvFileError) Unwrap() error { return e.Err }

// EnvFileVariables is ParseEnvFile with the place of each assignment; each problem is an
// *EnvFileError.
func EnvFileVariables(text string) (assignments []EnvVariable, problems []error) {
	p := envParser{text: text, line: 1}
	for p.pos < len(p.text) {
		line := p.line
		name, err := p.name()
		if err != nil {
			problems = append(problems, &EnvFileError{Line: line, Err: err})
			continue
		}
		if name == "" {
			continue
		}
		value := p.value()
		if err := CheckEnvName(name); err != nil {
			problems = append(problems, &EnvFileError{Line: line, Err: err})
			continue
		}
		if strings.IndexByte(value, 0) >= 0 || !utf8.ValidString(value) {
			problems = append(problems, &EnvFileError{Line: line, Err: fmt.Errorf("the value of %s is no UTF-8 text", name)})
			continue
		}
		assignments = append(assignments, EnvVariable{Name: name, Value: value, Line: line})
	}
	return assignments, problems
}

type envParser struct {
	text string
	pos  int
	line int
}

// next takes one character; ok is false at the end.
func (p *envParser) next() (c byte, ok bool) {
	if p.pos == len(p.text) {
		return 0, false
	}
	c = p.text[p.pos]
	p.pos++
	if c == '\n' {
		p.line++
	}
	return c, true
}

// errNoName is said of a line "=VALUE".
var errNoName = errors.New("there is no name before the equals sign")

// name reads up to the equals sign. A comment has no name, and a line without such a sign
// is an error; both are consumed.
func (p *envParser) name() (string, error) {
	start := p.pos
	end := strings.IndexByte(p.text[start:], '\n')
	if end < 0 {
		end = len(p.text) - start
	}
	line := p.text[start : start+end]
	trimmed := strings.TrimLeft(line, blanks)
	if trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';' {
		p.skipComment()
		return "", nil
	}
	name, _, ok := strings.Cut(line, "=")
	if !ok {
		p.pos = min(start+end+1, len(p.text))
		p.line++
		return "", fmt.Errorf("%q is no assignment NAME=VALUE", trimmed)
	}
	p.pos = start + len(name) + 1
	if name = strings.TrimSpace(name); name == "" {
		p.value()
		return "", errNoName
	}
	return name, nil
}

// skipComment consumes a comment; a backslash carries it over to the next line.
func (p *envParser) skipComment() {
	for {
		c, ok := p.next()
		if !ok || c == '\n' {
			return
		}
		if c == '\\' {
			p.next()
		}
	}
}

// value reads to the end of the assignment. Quotes count before anything that is not
// quoted, and are characters like others behind it. Blanks before it, blanks between
// quoted parts, and unquoted blanks behind it do not count.
func (p *envParser) value() string {
	var b strings.Builder
	keep := 0 // length of b that must survive the cut of trailing blanks
	plain := false
	for {
		c, ok := p.next()
		switch {
		case !ok || c == '\n' || c == '\r':
			return b.String()[:keep] + strings.TrimRight(b.String()[keep:], blanks)
		case c == '\\':
			plain = true
			if c, ok = p.next(); ok && c != '\n' {
				b.WriteByte(c)
			}
			keep = b.Len()
		case plain:
			b.WriteByte(c)
		case c == '\'':
			p.single(&b)
			keep = b.Len()
		case c == '"':
			p.double(&b)
			keep = b.Len()
		case strings.IndexByte(blanks, c) >= 0:
		default:
			plain = true
			b.WriteByte(c)
		}
	}
}

func (p *envParser) single(b *strings.Builder) {
	for c, ok := p.next(); ok && c != '\''; c, ok = p.next() {
		b.WriteByte(c)
	}
}

func (p *envParser) double(b *strings.Builder) {
	for c, ok := p.next(); ok && c != '"'; c, ok = p.next() {
		if c == '\\' {
			c, ok = p.next()
			if !ok || c == '\n' {
				continue
			}
			if strings.IndexByte("\"\\`$", c) < 0 {
				b.WriteByte('\\')
			}
		}
		b.WriteByte(c)
	}
}
