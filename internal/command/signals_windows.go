package command

import (
	"os"
	"syscall"
)

var stopSignalList = []os.Signal{os.Interrupt, syscall.SIGTERM}
