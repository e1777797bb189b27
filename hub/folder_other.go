//go:build !unix

package hub

import "errors"

func ownFolder(string) (string, error) {
	return "", errors.New("folders of queues are not entered on this system")
}
