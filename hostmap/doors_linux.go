package hostmap

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// throughFD is how a name begins that leads through a descriptor of who bound it.
const throughFD = "/proc/self/fd/"

// temporary are names that local doors have until they are published.
var temporary = regexp.MustCompile(`^\.new-[A-Z2-7]{16}$`)

// maxDoors is how many files of a folder are looked at for a door.
const maxDoors = 4096

// bound is a name that a socket was bound to, and the number of its file, as far as sock_diag tells: 32 bits.
type bound struct {
	name string
	file uint32
}

// split is the descriptor that the name leads through, and the file's name in that folder.
func (b bound) split() (fd int, name string, is bool) {
	rest, is := strings.CutPrefix(b.name, throughFD)
	number, name, has := strings.Cut(rest, "/")
	fd, err := strconv.Atoi(number)
	return fd, name, is && has && err == nil && !strings.Contains(name, "/")
}

// doors are the paths of sockets that were bound through a descriptor of a folder, and perhaps renamed there since, as local doors are. They are not safe for concurrent use.
type doors map[bound]string

// rename calls such sockets by the paths that they have now.
func (d doors) rename(sockets []unixSocket, procs []proc) {
	wanted := map[uint64]bound{} // by the socket's inode
	for i := range sockets {
		at := sockets[i].bound()
		if _, _, is := at.split(); is && d[at] == "" {
			wanted[sockets[i].inode] = at
		}
	}
	if len(wanted) > 0 {
		d.find(wanted, procs)
	}
	for i := range sockets {
		at := sockets[i].bound()
		if path := d[at]; path != "" {
			sockets[i].name = path
		} else if _, name, is := at.split(); is && temporary.MatchString(name) {
			sockets[i].name = LocalDoor // of a process that may not be looked at
		}
	}
}

func (s *unixSocket) bound() bound { return bound{s.name, s.file} }

// find looks in the folders that those who have the sockets have open. What it does not find is not looked for again.
func (d doors) find(wanted map[uint64]bound, procs []proc) {
	looked := map[bound]string{} // what is said if nobody has the folder
	for _, p := range procs {
		tried := map[bound]bool{}
		for _, inode := range p.sockets {
			at, is := wanted[inode]
			if !is || tried[at] || d[at] != "" {
				continue
			}
			tried[at] = true
			fd, name, _ := at.split()
			if path := fileIn(fmt.Sprintf("/proc/%d/fd/%d", p.PID, fd), at.file); path != "" {
				d[at] = path
			} else if looked[at] = at.name; temporary.MatchString(name) {
				looked[at] = LocalDoor
			}
		}
	}
	for at, otherwise := range looked {
		if d[at] == "" {
			d[at] = otherwise
		}
	}
}

// fileIn is the path of the socket that has a number in a folder which a link leads to; empty: there is none.
func fileIn(link string, number uint32) string {
	fd, err := unix.Open(link, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) // what is no folder may block, and is not opened
	if err != nil {
		return ""
	}
	dir := os.NewFile(uintptr(fd), link)
	defer dir.Close()
	entries, _ := dir.ReadDir(maxDoors) // what was read before an error may have it
	for _, e := range entries {
		if e.Type() != fs.ModeSocket {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // it is gone
		}
		if st, is := info.Sys().(*syscall.Stat_t); is && uint32(st.Ino) == number {
			folder, err := os.Readlink(link)
			if err != nil {
				return ""
			}
			return strings.ToValidUTF8(filepath.Join(folder, e.Name()), "?")
		}
	}
	return ""
}
