// Package sstable keeps versions in sorted files that are written once, in one
// pass, and deleted as a whole. There are two kinds of them: the history holds
// versions that newer ones have replaced, runs those that are new and not yet in
// the engine.
//
// A file is complete, synced and renamed before what it came from is dropped;
// what a crash leaves under another name is removed at the next start, and the
// source is still there.
package sstable
