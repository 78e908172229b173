package config

func (r *reader) wrongType(e Entry, path string, p pair) {
	r.add(p.key, Warning, path, "incorrect type for %q (want %s, have %s)", p.key.text, e.Type, p.value.is())
}

func (r *reader) check(e Entry, path, name, text string, n *node) bool { return true }
func checkHostname(s string) string                                    { return "" }
func checkKey(s string) string                                         { return "" }
func checkUnitName(s string) string                                    { return "" }
func checkDropInName(s string) string                                  { return "" }
func checkUserName(s string) string                                    { return "" }
func checkHash(s string) string                                        { return "" }
func checkGecos(s string) string                                       { return "" }
func checkAbsolute(s string) string                                    { return "" }
func checkGroup(s string) string                                       { return "" }
func checkURL(s string) string                                         { return "" }
func checkPath(s string) string                                        { return "" }
func checkOwner(s string) string                                       { return "" }
func checkPermissions(s string) string                                 { return "" }
func checkWindowStart(s string) string                                 { return "" }
func checkWindowLength(s string) string                                { return "" }
func checkMetadata(s string) string                                    { return "" }
