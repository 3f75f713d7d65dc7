package dev

import "context"

// WatchGoRun does nothing here: a process does not learn that its parent ended.
func WatchGoRun(ctx context.Context) context.Context { return ctx }
