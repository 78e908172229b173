package mvcc

import "flotilla/api/keys"

// Observe calls f for every event from now on, whoever caused it and wherever it
// happened, in the order of the indexes. f is called with the store locked: it
// must return at once, not call the store, and not modify the event. There is one
// observer; a second call replaces the first.
func (s *Store) Observe(f func(*keys.Event)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.observe = f
}
