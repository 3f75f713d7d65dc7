//go:build !linux

package badger

// adviseMappings does nothing: other systems do not list mappings this way.
func adviseMappings(func(path string) advice) error { return nil }
