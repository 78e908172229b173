package v2

import (
	"fmt"
	"strings"
	"time"

	"flotilla/api/keys"
)

// Plan is a write as plain data: one v3 transaction.
type Plan struct {
	// Path is the node whose Change answers the request. A Post names it here.
	Path   string
	Guards []Guard // all must hold when the transaction runs
	Writes []Write
}

// Guard is a condition on a key, or on all keys from Key up to End, that exist
// when the transaction runs. A key that does not exist has revision 0.
type Guard struct {
	Key, End string // End "": the one key
	Field    Field
	Revision uint64
}

// Field is what a Guard looks at, and how.
type Field int

// The fields.
const (
	ModifiedIs     Field = iota // the key's revision is the given one
	CreatedIs                   // the key's create revision is the given one
	ModifiedAtMost              // no key is newer than the given revision
)

// Write is one operation of a Plan.
type Write struct {
	Kind     WriteKind
	Key, End string // End is for Delete: all keys from Key up to it
	Value    string
}

// WriteKind is what a Write does.
type WriteKind int

// The kinds of writes.
const (
	Put       WriteKind = iota
	PutKeep             // a put that keeps the value
	DeleteKey           // or a range
)

// Evaluate says what a write would do to the tree, or why it cannot be done. It
// changes nothing. Get and watches are not writes: Evaluate panics.
//
// An error is only as fresh as the tree: for a linearizable answer the caller
// makes sure that the tree has caught up and evaluates again.
func (t *Tree) Evaluate(r Request, now time.Time) (Plan, *keys.Error) {
	p := plan{t: t, r: r, expires: r.Expires(now), Plan: Plan{Path: r.Path}}
	var err *keys.Error
	switch r.Op {
	case Set:
		err = p.set()
	case Create:
		err = p.create()
	case Post:
		p.Path = strings.TrimSuffix(r.Path, "/") + fmt.Sprintf("/%020d", t.index+1)
		p.guard(eventKey, ModifiedIs, t.event)
		err = p.create()
	case Update:
		err = p.update()
	case CompareAndSwap:
		err = p.swap()
	case Delete:
		err = p.delete()
	case CompareAndDelete:
		err = p.compareAndDelete()
	default:
		panic(fmt.Sprintf("v2: evaluate operation %d", r.Op))
	}
	if err != nil {
		return Plan{}, err
	}
	return p.Plan, nil
}

// plan is a Plan in the making.
type plan struct {
	Plan
	t       *Tree
	r       Request
	expires *time.Time
}

func (p *plan) set() *keys.Error {
	if p.Path == "/" {
		return p.t.fail(keys.CodeRootReadOnly, "/")
	}
	n, err := p.t.find(p.Path)
	switch {
	case err != nil && (err.ErrorCode != keys.CodeKeyNotFound || p.r.Refresh):
		return err
	case n != nil && n.isDir():
		return p.t.fail(keys.CodeNotFile, p.Path)
	}
	p.parents(p.Path)
	p.write(record{Dir: p.r.Dir, Action: keys.Set, Expires: p.expires, Refresh: p.r.Refresh})
	return nil
}

func (p *plan) create() *keys.Error {
	if p.Path == "/" {
		return p.t.fail(keys.CodeRootReadOnly, "/")
	}
	_, err := p.t.find(p.Path)
	switch {
	case err == nil:
		return p.t.fail(keys.CodeNodeExist, p.Path)
	case err.ErrorCode != keys.CodeKeyNotFound:
		return err
	}
	p.parents(p.Path)
	p.write(record{Dir: p.r.Dir, Action: keys.Create, Expires: p.expires})
	return nil
}

func (p *plan) update() *keys.Error {
	n, err := p.existing()
	if err != nil {
		return err
	}
	if !n.isDir() {
		p.rewrite(n, keys.Update)
		return nil
	}
	if p.r.Value != "" {
		return p.t.fail(keys.CodeNotFile, p.Path)
	}
	// The directory keeps its modifiedIndex: the original never stored the new one.
	p.parents(p.Path)
	p.guardRecord(n, p.Path)
	p.put(recordKey(p.Path), record{
		Dir: true, Action: keys.Update, Expires: p.expires, Refresh: p.r.Refresh,
		Created: n.created(), Modified: n.modified(),
	}.encode())
	return nil
}

func (p *plan) swap() *keys.Error {
	n, err := p.existing()
	if err == nil {
		err = p.compare(n)
	}
	if err != nil {
		return err
	}
	p.rewrite(n, keys.CompareAndSwap)
	return nil
}

func (p *plan) delete() *keys.Error {
	n, err := p.existing()
	switch {
	case err != nil:
		return err
	case n.isDir() && !p.r.Dir && !p.r.Recursive:
		return p.t.fail(keys.CodeNotFile, p.Path)
	case n.isDir() && !p.r.Recursive && n.living > 0:
		return p.t.fail(keys.CodeDirNotEmpty, p.Path)
	}
	p.parents(p.Path)
	if !n.isDir() {
		p.guardValue(n, p.Path)
		p.removeFile(n)
		return nil
	}
	p.guardDir(n, p.Path)
	if !p.r.Recursive {
		p.guardNothingNew(p.Path)
	}
	p.removeDir(n)
	p.say(keys.Delete)
	return nil
}

func (p *plan) compareAndDelete() *keys.Error {
	if p.Path == "/" {
		return p.t.fail(keys.CodeNotFile, "")
	}
	n, err := p.existing()
	if err == nil {
		err = p.compare(n)
	}
	if err != nil {
		return err
	}
	p.parents(p.Path)
	p.guardValue(n, p.Path)
	p.removeFile(n)
	p.say(keys.CompareAndDelete)
	return nil
}

// existing finds the node that the request changes.
func (p *plan) existing() (*node, *keys.Error) {
	if p.Path == "/" {
		return nil, p.t.fail(keys.CodeRootReadOnly, "/")
	}
	return p.t.find(p.Path)
}

// compare checks the request's conditions on a file. The cause lists those that
// failed.
func (p *plan) compare(n *node) *keys.Error {
	if n.isDir() {
		return p.t.fail(keys.CodeNotFile, p.Path)
	}
	var failed []string
	if p.r.PrevValue != "" && p.r.PrevValue != n.value {
		failed = append(failed, fmt.Sprintf("[%s != %s]", p.r.PrevValue, n.value))
	}
	if p.r.PrevIndex != 0 && p.r.PrevIndex != n.modified() {
		failed = append(failed, fmt.Sprintf("[%d != %d]", p.r.PrevIndex, n.modified()))
	}
	if failed != nil {
		return p.t.fail(keys.CodeTestFailed, strings.Join(failed, " "))
	}
	return nil
}

// write makes the node at the path new: whatever was there before does not count.
func (p *plan) write(rec record) {
	n := p.t.peek(p.Path)
	if n == nil {
		n = &node{}
	}
	p.guardRecord(n, p.Path) // it is no directory
	if rec.Dir || rec.Refresh || rec.Action == keys.Create {
		p.guardValue(n, p.Path)
	}
	switch {
	case rec.Dir:
		if n.held() {
			p.del(p.Path)
		}
		p.put(recordKey(p.Path), rec.encode())
		if p.r.Op == Post {
			p.say(rec.Action)
		}
	case rec.Refresh:
		p.Writes = append(p.Writes, Write{Kind: PutKeep, Key: p.Path})
		p.put(recordKey(p.Path), rec.encode())
	default:
		p.put(p.Path, p.r.Value)
		p.describe(n, rec)
	}
}

// rewrite changes a file that stays the one it was: its createdIndex is kept.
func (p *plan) rewrite(n *node, action string) {
	p.parents(p.Path)
	p.guardValue(n, p.Path)
	if p.r.Refresh {
		p.Writes = append(p.Writes, Write{Kind: PutKeep, Key: p.Path})
	} else {
		p.put(p.Path, p.r.Value)
	}
	p.describe(n, record{Action: action, Created: n.created(), Expires: p.expires, Refresh: p.r.Refresh})
}

// describe keeps beside the file what its value does not say, as sparsely as can
// be: nothing at all for a plain set.
func (p *plan) describe(n *node, rec record) {
	switch {
	case rec.durable():
		p.put(recordKey(p.Path), rec.encode())
	case n.recordModified != 0:
		p.del(recordKey(p.Path))
	}
	if p.r.Op == Post || rec.Action == keys.Create && !rec.durable() {
		p.say(rec.Action)
	}
}

// say writes the event record, which tells what the transaction is called.
func (p *plan) say(action string) {
	p.put(eventKey, eventRecord{Action: action, Key: p.Path}.encode())
}

func (p *plan) removeFile(n *node) {
	p.del(p.Path)
	if n.recordModified != 0 {
		p.del(recordKey(p.Path))
	}
}

// removeDir removes all that is in the directory now or when the transaction
// runs.
func (p *plan) removeDir(n *node) {
	for _, key := range []string{p.Path, recordKey(p.Path)} {
		p.del(key)
		start, end := below(key)
		p.Writes = append(p.Writes, Write{Kind: DeleteKey, Key: start, End: end})
	}
}

// parents guards that what is above the path still is as the tree knows it, and
// gives a record to each directory there that has none, so that it has an index of its
// own and outlives its last child.
//
// The nearest recorded directory vouches for all above it: who removes one of
// those removes it, too.
func (p *plan) parents(path string) {
	names := segments(path)
	var nearest *node
	n := p.t.root
	at := ""
	for _, name := range names[:len(names)-1] {
		at += "/" + name
		if n != nil {
			n = n.children[name]
		}
		if n != nil && n.recorded() {
			nearest = n
			continue
		}
		p.adopt(n, at)
	}
	if nearest != nil {
		p.guardDir(nearest, nearest.path())
	}
}

// adopt gives a record to the directory at path; n is nil if it is to be made.
func (p *plan) adopt(n *node, path string) {
	rec := record{Dir: true}
	if n != nil && n.isDir() {
		rec.Created, rec.Modified = n.created(), n.modified()
	}
	p.guardValue(n, path)
	p.guardRecord(n, path)
	p.put(recordKey(path), rec.encode())
}

// guardValue holds while the value at path is the one that n has; nil is none.
func (p *plan) guardValue(n *node, path string) {
	if n == nil {
		n = &node{}
	}
	p.guard(path, ModifiedIs, n.valueModified)
}

// guardRecord holds while the record at path is the one that n has; nil is none.
func (p *plan) guardRecord(n *node, path string) {
	if n == nil {
		n = &node{}
	}
	p.guard(recordKey(path), ModifiedIs, n.recordModified)
}

// guardDir holds while n is the same directory, whatever its TTL is now.
func (p *plan) guardDir(n *node, path string) {
	if !n.recorded() {
		p.guardRecord(n, path)
		return
	}
	p.guard(recordKey(path), CreatedIs, n.recordCreated)
}

// guardNothingNew holds while nothing has been put into the directory.
func (p *plan) guardNothingNew(path string) {
	for _, key := range []string{path, recordKey(path)} {
		start, end := below(key)
		p.Guards = append(p.Guards, Guard{Key: start, End: end, Field: ModifiedAtMost, Revision: p.t.index})
	}
}

func (p *plan) guard(key string, f Field, revision uint64) {
	p.Guards = append(p.Guards, Guard{Key: key, Field: f, Revision: revision})
}

func (p *plan) put(key, value string) {
	p.Writes = append(p.Writes, Write{Kind: Put, Key: key, Value: value})
}

func (p *plan) del(key string) {
	p.Writes = append(p.Writes, Write{Kind: DeleteKey, Key: key})
}
