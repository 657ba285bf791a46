//go:build !linux

package link

import "fmt"

func openSerial(t Target) (Stream, error) {
	return nil, fmt.Errorf("open %s: serial lines are supported on Linux only", t)
}
