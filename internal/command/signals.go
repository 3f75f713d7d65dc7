package command

import (
	"os"
	"os/signal"
)

// signalStream delivers the signals that ask a program to stop.
type signalStream struct{ c chan os.Signal }

func notifySignals() signalStream {
	s := signalStream{make(chan os.Signal, 2)}
	signal.Notify(s.c, stopSignalList...)
	return s
}

func (s signalStream) stop() {
	signal.Stop(s.c)
	close(s.c)
}
