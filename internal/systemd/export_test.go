package systemd

// NewOnMessageBus returns a Manager that takes the way of those who are not root.
func NewOnMessageBus(cfg Config) *Manager {
	m := New(cfg)
	m.open = openMessageBus
	return m
}
